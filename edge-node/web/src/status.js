// Where the stream is, as the edge's beacon and the player tell it, and which state of the page follows from that.

/// Seconds without new media after which a running stream counts as silent: its publisher may be away. A part of up to half
/// that length may come late by as much again.
const SILENT_S = 0.8;
/// Seconds of silence of a stream whose publisher is connected after which the page says so instead of turning its spinner.
const HUNG_S = 4;

/// Seconds of media without a keyframe after which the page says that it waits for one: more than a usual keyframe interval.
const KEYLESS_S = 4;

/// Milliseconds between an answer that the edge has held and the next heartbeat, and after one that it could not give.
const [NEXT_MS, FAILED_MS] = [250, 2000];
/// Milliseconds between two heartbeats for a stream that is over or does not exist.
const OVER_MS = 15_000;
/// The longest wait for an answer in milliseconds: the edge holds it for up to 10 s, until something changes.
const ANSWER_MS = 15_000;
/// An answer without news that comes sooner has not been held.
const HELD_MS = 1000;
/// The share by which pauses vary, so that the viewers of a stream do not ask in step.
const SPREAD = 0.2;

/// Returns the time without new media from which a stream with parts of `part` seconds counts as silent.
export const silentFrom = (part) => Math.max(SILENT_S, 2.5 * (part || 0));

/// Returns the state of the page. `phase` is the beacon's (`null` until it has answered, `unreachable` when it does not),
/// `picture` is true once something has been shown, `moving` while time advances, `silent` the seconds without new media,
/// `before` the last state; `keyless` the seconds since when media has come that no decoder can start with.
export function pageState({ phase, supported, over, picture, moving, buffered, silent, part, before, keyless = 0 }) {
  if (!supported) return 'failed';
  if (phase === 'missing') return 'missing';
  const quiet = silent >= silentFrom(part);
  if ((phase === 'ended' || over) && (!picture || !buffered)) return 'ended';
  if (phase === 'away' && (quiet || !picture)) return 'away';
  // An edge that has begun to follow the stream just now knows less than this page has shown.
  if (['waiting', 'starting'].includes(phase) && picture && !buffered) return 'away';
  if (before === 'away' && !moving && phase !== 'unreachable') return 'away';
  if (picture && (buffered || moving)) return 'playing';
  if (phase === 'unreachable') return 'interrupted';
  if (picture) return quiet && silent >= HUNG_S && phase === 'live' ? 'hung' : 'playing';
  if (phase === 'live' && keyless >= KEYLESS_S) return 'keyless';
  return { waiting: 'waiting', starting: 'starting', live: 'starting' }[phase] ?? 'connecting';
}

/// Returns the milliseconds until the next heartbeat. `held` is false for an answer that came at once without news: the edge has
/// no room to hold another one.
export function pause({ phase, state, interval_s }, held = true) {
  if (phase === 'missing' || phase === 'ended') return OVER_MS;
  if (phase === 'unreachable' || !state) return FAILED_MS;
  return held ? NEXT_MS : (interval_s ?? 10) * 1000;
}

/// The beacon of one stream: it counts this viewer and tells the phase as soon as it changes.
export class Beacon {
  #address;
  #watching;
  #changed;
  #session = null;
  #timer = 0;
  #held = null;
  reply = { phase: null };

  /// `watching()` is true while this viewer counts; `changed` is called with every answer.
  constructor(address, watching, changed) {
    this.#address = address;
    this.#watching = watching;
    this.#changed = changed;
    addEventListener('pagehide', () => this.#leave());
    addEventListener('pageshow', (event) => { if (event.persisted) this.follow(); });
  }

  get phase() { return this.reply.phase; }

  /// Sends a heartbeat now, and others after it.
  async follow() {
    clearTimeout(this.#timer);
    const held = this.#held = new AbortController();
    const limit = setTimeout(() => held.abort(), ANSWER_MS);
    const [asked, known] = [performance.now(), this.reply.state];
    const reply = await this.#ask(held.signal).catch(() => this.#unreachable());
    clearTimeout(limit);
    if (this.#held !== held) return;
    const wasHeld = !known || reply.state !== known || performance.now() - asked > HELD_MS;
    this.reply = reply;
    this.#changed(reply);
    this.#timer = setTimeout(() => this.follow(), pause(reply, wasHeld) * (1 - SPREAD / 2 + Math.random() * SPREAD));
  }

  /// A stream that is over or does not exist stays so while the edge does not answer.
  #unreachable() {
    return ['missing', 'ended'].includes(this.phase) ? this.reply : { ...this.reply, phase: 'unreachable', state: null };
  }

  #leave() {
    this.#held?.abort();
    this.#held = null;
    clearTimeout(this.#timer);
    if (this.#session && this.#watching()) {
      navigator.sendBeacon(this.#address, JSON.stringify({ session: this.#session, leaving: true }));
    }
  }

  async #ask(signal) {
    const session = this.#watching() && this.#session ? { session: this.#session } : {};
    const state = this.reply.state ? { state: this.reply.state } : {};
    const answer = await fetch(this.#address, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...session, ...state }),
      signal,
    });
    if (answer.status === 404) return { phase: 'missing' };
    if (!answer.ok) throw new Error(`beacon ${answer.status}`);
    const reply = await answer.json();
    this.#session = reply.session;
    return reply;
  }
}
