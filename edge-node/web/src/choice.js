// The variant of hls.js that plays: the page's own choice by what the network delivers, or the viewer's.
import Hls from 'hls.js';
import * as ladder from './ladder.js';

const seconds = () => performance.now() / 1000;
const rungs = (hls) => hls.levels.map((level) => ({ peak: level.maxBitrate, average: level.averageBitrate }));

/// A controller of hls.js that loads the variant that `choice` returns; without an answer, and in an emergency, it chooses as hls.js
/// does.
const choosing = (Controller, choice) => class extends Controller {
  get nextAutoLevel() {
    const { hls } = this;
    const level = hls && this.forcedAutoLevel === -1 ? choice(hls) : null;
    return level === null ? super.nextAutoLevel : Math.min(Math.max(level, hls.minAutoLevel), hls.maxAutoLevel);
  }

  set nextAutoLevel(level) { super.nextAutoLevel = level; }
};

export class Choice {
  #state = ladder.begin();
  #hls = null;
  #level = -1;
  /// The height of the pictures that the viewer has chosen; `null` for the page's own choice. A new start keeps it.
  height = null;

  get controller() { return choosing(Hls.DefaultConfig.abrController, (hls) => ladder.choose(this.#state, this.#seen(hls))); }

  #seen(hls) { return { rungs: rungs(hls), current: this.#level, now: seconds() }; }

  /// Follows a new player.
  follow(hls) {
    this.#hls = hls;
    this.#level = -1;
    hls.on(Hls.Events.MANIFEST_PARSED, () => { if (this.height !== null) this.choose(this.height); });
    hls.on(Hls.Events.LEVEL_SWITCHING, (_, { level }) => {
      ladder.moved(this.#state, { from: this.#level === -1 ? level : this.#level, to: level, now: seconds() });
      this.#level = level;
    });
    hls.on(Hls.Events.FRAG_LOADED, (_, { frag, part }) => {
      if (frag.type === 'main' && frag.sn !== 'initSegment') this.#measure(part ?? frag);
    });
    hls.on(Hls.Events.FRAG_LOAD_EMERGENCY_ABORTED, (_, { frag, part }) => this.#measure(part ?? frag));
  }

  /// Takes a load that has ended, or is given up.
  #measure({ duration, stats: { loading, loaded } }) {
    const ms = (at) => Math.max(0, (at || performance.now()) - loading.start);
    ladder.sample(this.#state, { bytes: loaded, media: duration, took: ms(loading.end) / 1000, first: ms(loading.first) / 1000 });
  }

  /// Seconds of media to keep buffered beside the usual ones.
  get spare() { return this.#hls?.levels?.length > 1 ? ladder.spare(this.#state, this.#seen(this.#hls)) : 0; }

  /// The heights of the pictures that the viewer can choose from, the greatest first; none if there is one only.
  get heights() {
    const heights = [...new Set((this.#hls?.levels ?? []).map((level) => level.height).filter((height) => height > 0))];
    return heights.length > 1 ? heights.sort((one, other) => other - one) : [];
  }

  /// Plays pictures of this height from the next segment on; `null` leaves the choice to the page.
  choose(height) {
    this.height = height;
    const levels = this.#hls?.levels ?? [];
    if (levels.length > 0) this.#hls.loadLevel = height === null ? -1 : levels.findLastIndex((level) => level.height === height);
  }
}
