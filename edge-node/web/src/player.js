// The player: hls.js over Media Source Extensions, or the browser's own HLS. It joins at the newest keyframe, keeps its distance
// to the newest part by the latency controller, goes on behind GAPs, and starts anew when hls.js cannot.
import Hls from 'hls.js';
import { Choice } from './choice.js';
import { joining, trimming } from './hooks.js';
import { begin, step, target } from './latency.js';
import { Leading } from './leading.js';
import { EARLY_SHARE, afterGap, endsInGap, joinAt, keyframes, newest, unknownReports } from './playlist.js';
import * as rescue from './rescue.js';
import { silentFrom } from './status.js';
import { load } from './trial.js';

/// Seconds without progress after which the player goes to the newest part, and after which it starts anew.
const STALL_JUMP_S = 3;
const STALL_RESTART_S = 8;
/// Seconds before a failed start is tried again, from the first to the last failure in a row. A request that the edge has held
/// and then refused is repeated at once: holding is how the edge paces the viewers of a stream that has not started.
const RETRY_S = [0.5, 1, 2, 4];
const HELD_S = 2;
/// Failed appends that hls.js recovers from in place before the player starts anew.
const RECOVERIES = 2;
/// Seconds after which a keyframe has come for a player that waits for its first one, and it does not play: it joins there.
const KEYFRAME_UNUSED_S = 1;
/// Buffered seconds below which the player has nothing to play.
const DRY_S = 0.1;
/// The first picture is the newest keyframe, as it is there first. Within this time in seconds the player hops from it to its
/// target, if so much is buffered and the decoder has at most so many seconds to work through.
const HOP_WITHIN_S = 2;
const HOP_MOST_S = 2.5;
const HOP_LEAST_S = 0.5;
/// Seconds behind the target from which going live is worth joining anew.
const GO_LIVE_LEAST_S = 1;
/// Seconds that a seek goes behind the start of a buffered range: starts are rounded.
const INSIDE_S = 0.01;

const seconds = () => performance.now() / 1000;

export class Player {
  #video;
  #still;
  #source;
  #changed;
  #hls = null;
  #timer = 0;
  #failures = 0;
  #startedAt = 0;
  #latency = begin();
  #stalled = false;
  #progress = { time: -1, at: 0, jumped: false };
  #media = { key: -1, at: 0 };
  #resumed = -1;
  #hopBefore = 0;
  #leading = new Leading();
  /// True until what this run of the player has loaded plays.
  #fresh = true;
  /// True while the viewer has not paused: a new start then plays at once.
  #plays = true;
  #rescue = rescue.begin();
  /// Which variant plays.
  choice = new Choice();
  #reloadedFor = new Set();
  #offered = [];
  /// The program date in milliseconds at which the next start joins; `null` for the newest keyframe.
  #place = null;
  /// True once this viewer has seen a picture or heard sound.
  picture = false;
  /// The time since when pictures have been appended of which the browser has kept none.
  #keylessSince = null;
  /// True once the playlist has ended.
  over = false;
  /// True while playback runs on no user's pause but its own.
  moving = false;

  constructor(video, still, source, changed) {
    this.#video = video;
    this.#still = still;
    this.#source = source;
    this.#changed = changed;
    video.addEventListener('playing', () => this.#shown());
    video.addEventListener('waiting', () => {
      if (!this.picture || video.seeking || video.paused) return;
      this.#stalled = true;
      rescue.noteStall(this.#rescue, seconds());
    });
    video.addEventListener('error', () => { if (!this.#hls && video.error && video.src) this.#again(); });
  }

  static get supported() {
    return Hls.isSupported() || document.createElement('video').canPlayType('application/vnd.apple.mpegurl') !== '';
  }

  get isRunning() { return this.#hls !== null || Boolean(this.#video.src); }
  get details() { return this.#hls?.latestLevelDetails ?? null; }
  get #isAvc() { return this.#hls?.levels?.[0]?.videoCodec?.startsWith('avc') ?? false; }
  get part() { return this.details?.partTarget ?? 0; }
  /// Seconds since the newest media was listed.
  get silent() { return this.picture && this.#media.at > 0 ? seconds() - this.#media.at : 0; }
  /// Seconds since when pictures have come and none of them is a keyframe, which decoding has to begin with.
  get keyless() { return this.picture || this.#keylessSince === null ? 0 : seconds() - this.#keylessSince; }
  get isSilent() { return this.silent >= silentFrom(this.part); }
  get isSound() { return this.#hls?.levels?.length > 0 && this.#video.videoWidth === 0 && !this.#hls.levels.some((level) => level.videoCodec); }
  get #floor() { return (this.details?.partHoldBack || this.details?.holdBack || 0) + this.choice.spare; }
  get target() { return target(this.#latency, this.#floor); }

  /// Seconds of media before the playhead.
  get ahead() {
    const { buffered, currentTime } = this.#video;
    for (let i = 0; i < buffered.length; i++) {
      if (buffered.start(i) <= currentTime + DRY_S && currentTime < buffered.end(i)) return buffered.end(i) - currentTime;
    }
    return 0;
  }

  get buffered() { return this.ahead > DRY_S; }

  get #edge() {
    const details = this.details;
    if (details) return details.edge + Math.max(0, details.age);
    const { seekable } = this.#video;
    return seekable.length ? seekable.end(seekable.length - 1) : NaN;
  }

  /// Seconds behind the newest part; NaN while unknown.
  get latency() { return this.#edge - this.#video.currentTime; }

  start() {
    clearTimeout(this.#timer);
    if (this.isRunning) return;
    this.over = false;
    this.#startedAt = seconds();
    this.#fresh = true;
    this.#progress = { time: -1, at: seconds(), jumped: false };
    if (Hls.isSupported()) this.#startHls();
    else {
      this.#video.src = this.#source;
      if (this.#plays) this.play();
    }
  }

  #startHls() {
    const where = (details) => this.#where(details);
    this.#leading = new Leading();
    this.#keylessSince = null;
    const trim = (data) => (this.#isAvc ? this.#leading.trim(data) : data);
    const hls = this.#hls = new Hls({
      lowLatencyMode: true,
      backBufferLength: 30,
      // The latency is this page's affair: hls.js would change the rate several times a second, and raise its target for good.
      maxLiveSyncPlaybackRate: 1,
      liveSyncOnStallIncrease: 0,
      // The measure of bandwidth by a first segment of the lowest rung costs a second at the start.
      testBandwidth: false,
      abrController: this.choice.controller,
      fLoader: trimming(Hls.DefaultConfig.loader, trim),
      streamController: joining(Hls.DefaultConfig.streamController, where),
      audioStreamController: joining(Hls.DefaultConfig.audioStreamController, where),
      manifestLoadPolicy: { default: { maxTimeToFirstByteMs: 12000, maxLoadTimeMs: 15000, timeoutRetry: null, errorRetry: null } },
    });
    let recovered = 0;
    hls.on(Hls.Events.ERROR, (_, error) => {
      if (!error.fatal) return;
      if (error.type === Hls.ErrorTypes.MEDIA_ERROR && recovered++ < RECOVERIES) hls.recoverMediaError();
      else this.#again();
    });
    hls.on(Hls.Events.MANIFEST_LOADED, (_, { levels }) => rescue.offer(this.#rescue, levels));
    hls.on(Hls.Events.MANIFEST_PARSED, () => { if (this.#plays) this.play(); });
    this.choice.follow(hls);
    hls.on(Hls.Events.BUFFER_APPENDED, (_, { type, timeRanges }) => {
      if (type !== 'audio') this.#kept(timeRanges[type]);
      this.#hop();
    });
    hls.on(Hls.Events.LEVEL_UPDATED, (_, { details }) => this.#listed(details));
    hls.loadSource(this.#rescue.alone === null ? this.#source : this.#rescue.choices.sound);
    hls.attachMedia(this.#video);
  }

  /// Returns the time to join at: the place that a reload has kept, or the newest keyframe.
  #where(details) {
    if (this.#place !== null) {
      const place = this.#place;
      this.#place = null;
      const first = details.fragments.find((fragment) => fragment.programDateTime && !fragment.gap);
      const at = first ? first.start + (place - first.programDateTime) / 1000 : NaN;
      if (at > details.fragmentStart && at < details.edge) return at;
    }
    return joinAt(details, details.edge + Math.max(0, details.age), this.target);
  }

  #listed(details) {
    const last = newest(details);
    if (last > this.#media.key) this.#media = { key: last, at: seconds() };
    this.over = !details.live;
    const known = [...this.#hls.levels, ...this.#hls.allAudioTracks].flatMap((one) => one.url ?? []);
    const grown = unknownReports(details, known).filter((uri) => !this.#reloadedFor.has(uri));
    // The set of tracks is read once with the multivariant playlist, and a media source takes no track after its first media.
    if (grown.length > 0 && this.picture && this.#rescue.alone === null) {
      for (const uri of grown) this.#reloadedFor.add(uri);
      // hls.js is not to be destroyed in the middle of what it tells.
      this.#timer = setTimeout(() => this.#reload());
    }
    this.#changed();
  }

  /// Takes the tracks that the edge offers. The browser's own player is told of a grown set by a new start; hls.js reads of it in
  /// the playlists, earlier.
  offered(tracks) {
    const grown = tracks?.some((track) => !this.#offered.includes(track)) && this.#offered.length > 0;
    this.#offered = tracks ?? this.#offered;
    if (grown && this.picture && !this.#hls) this.#reload();
  }

  /// Reads the multivariant playlist anew and goes on where it was, or joins anew.
  #reload(keepsPlace = true) {
    this.#place = keepsPlace ? this.#hls?.playingDate?.getTime() ?? null : null;
    this.#halt();
    this.start();
  }

  /// Takes the ranges of pictures that the browser has kept. It drops those that come before a keyframe.
  #kept(ranges) {
    if (ranges?.length > 0) this.#keylessSince = null;
    else this.#keylessSince ??= seconds();
  }

  #shown() {
    if (this.#fresh) this.#hopBefore = seconds() + HOP_WITHIN_S;
    this.picture = true;
    this.#fresh = false;
    this.moving = true;
    this.#failures = 0;
    if (this.#media.at === 0) this.#media.at = seconds();
    this.#still.hidden = true;
    this.#changed();
  }

  /// Goes from the keyframe that was joined at to the target, once that is buffered.
  #hop() {
    const video = this.#video;
    const excess = this.latency - this.target;
    if (seconds() > this.#hopBefore || this.#leading.isOpen || video.seeking || video.paused || !(excess < HOP_MOST_S)) return;
    if (excess > this.ahead - DRY_S) return;
    this.#hopBefore = 0;
    if (excess > HOP_LEAST_S) video.currentTime += excess;
  }

  /// Stops the player. The last picture stays on the page.
  #halt() {
    clearTimeout(this.#timer);
    const { videoWidth, videoHeight, paused } = this.#video;
    if (!this.#fresh) this.#plays = !paused;
    if (videoWidth > 0 && this.picture) {
      Object.assign(this.#still, { width: videoWidth, height: videoHeight, hidden: false });
      this.#still.getContext('2d').drawImage(this.#video, 0, 0, videoWidth, videoHeight);
    }
    this.#hls?.destroy();
    this.#hls = null;
    this.#video.removeAttribute('src');
    this.#video.load();
    this.moving = false;
    this.#resumed = -1;
  }

  /// Stops for good: the stream is over or there is none.
  stop() {
    if (this.isRunning) this.#halt();
    clearTimeout(this.#timer);
  }

  /// Starts anew after a failure.
  #again() {
    const held = seconds() - this.#startedAt >= HELD_S && !this.picture;
    const pause = held ? 0.1 : RETRY_S[Math.min(this.#failures, RETRY_S.length - 1)];
    this.#failures += held ? 0 : 1;
    this.#halt();
    this.#timer = setTimeout(() => this.start(), pause * 1000 * (0.8 + Math.random() * 0.4));
    this.#changed();
  }

  async play() {
    this.#plays = true;
    try {
      await this.#video.play();
    } catch (error) {
      if (error.name !== 'NotAllowedError') return;
      // Browsers refuse sound before a gesture of the viewer, and play without sound.
      this.#video.muted = true;
      await this.#video.play().then(() => this.#changed('muted'), () => this.#changed('refused'));
    }
  }

  goLive() {
    const at = this.#edge - this.target;
    const by = at - this.#video.currentTime;
    if (by > 0 && this.#leading.isOpen && by < GO_LIVE_LEAST_S) { this.play(); return; }
    if (by > 0) this.#skip(by);
    this.play();
  }

  /// Looks at the player, four times a second: latency, GAPs, stalls.
  observe() {
    const [video, now] = [this.#video, seconds()];
    if (!this.isRunning) return;
    const moved = video.currentTime !== this.#progress.time;
    if (moved || video.paused || this.isSilent) this.#progress = { time: video.currentTime, at: now, jumped: false };
    this.moving = moved && this.picture && !video.paused;
    // The browser's own player tells nothing of its playlists; media that plays has come.
    if (moved && !this.#hls) this.#media.at = now;
    // The network is not to blame for what the publisher does not send.
    if (this.isSilent) this.#stalled = false;
    const { details } = this;
    if (!this.picture && details && this.keyless > 0 && this.#edge - (keyframes(details).at(-1) ?? NaN) > KEYFRAME_UNUSED_S) this.#again();
    if (!this.picture || video.paused || this.#rescued(now)) return;
    if (this.#fresh) {
      if (now - this.#startedAt > STALL_RESTART_S) this.#again();
      return;
    }
    if (details && !this.buffered && this.#goOn(details)) return;
    if (details && !this.isSilent && !video.seeking) this.#keepDistance(details, now);
    this.#watch(now - this.#progress.at);
  }

  /// Leaves the pictures out where the network carries audio alone, and tries them again; true if the player starts anew.
  #rescued(now) {
    if (!this.#rescue.choices || !this.#hls) return false;
    const still = this.isSilent ? 0 : now - Math.max(this.#progress.at, this.#startedAt);
    if (rescue.isDue(this.#rescue, { now, still, isLowest: this.#hls.loadLevel <= 0 })) {
      rescue.leave(this.#rescue, now);
      this.#reload(false);
      return true;
    }
    if (rescue.isTrialDue(this.#rescue, now)) this.#try();
    return false;
  }

  /// Goes back to the pictures if a segment of them comes fast enough.
  async #try() {
    const { pictures, bitrate } = this.#rescue.choices;
    const measured = await load(pictures);
    if (rescue.tried(this.#rescue, { now: seconds(), ...measured, bitrate })) this.#reload(false);
  }

  /// Goes on behind the GAPs that were listed while the publisher was away, once there is about enough behind them to play
  /// without a stall; true if it did.
  #goOn(details) {
    const at = afterGap(details, this.#video.currentTime + DRY_S);
    if (at === null || at === this.#resumed || endsInGap(details)) return false;
    if (this.#edge - at < this.target * EARLY_SHARE) return false;
    this.#resumed = at;
    this.#video.currentTime = at + INSIDE_S;
    return true;
  }

  #keepDistance(details, now) {
    const told = step(this.#latency, {
      now, latency: this.latency, ahead: this.ahead, floor: this.#floor,
      // A stall counts once it is over: until then it may turn out to be the publisher's.
      stalled: this.#stalled && this.moving, keyframe: this.#edge - (keyframes(details).at(-1) ?? NaN),
    });
    if (this.moving) this.#stalled = false;
    this.#video.preservesPitch = true;
    if (this.#video.playbackRate !== told.rate) this.#video.playbackRate = told.rate;
    if (told.skip > 0) this.#skip(told.skip);
  }

  /// Goes forward: inside the buffer, or by joining anew where decoding can begin at the first keyframe of a run only.
  #skip(by) {
    if (this.#leading.isOpen) this.#reload(false);
    else this.#video.currentTime += by;
  }

  /// Recovers from stalls that hls.js does not recover from by itself.
  #watch(still) {
    if (still > STALL_RESTART_S) this.#again();
    else if (still > STALL_JUMP_S && !this.#progress.jumped && this.#edge - this.target > this.#video.currentTime) {
      this.#progress.jumped = true;
      this.#video.currentTime = this.#edge - this.target;
    }
  }
}
