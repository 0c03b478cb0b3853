// Audio alone as the last resort: when the page leaves the pictures out, and when it tries them again. hls.js never plays a variant
// without pictures beside ones with pictures, so the page chooses it. Pure functions: no clock, no player, no network.

/// Seconds without progress on the lowest variant with pictures after which the page plays audio alone: a single late part is
/// over sooner.
const STILL_S = 2;
/// So many stalls within so many seconds have the same effect: the network is too slow, not late.
const STALLS = 3;
const WITHIN_S = 20;
/// Seconds from the change to audio alone to the first trial of the pictures; each trial in vain doubles them up to the most. A
/// trial loads one segment.
const TRIAL_S = 8;
const MOST_TRIAL_S = 64;
/// The network must deliver so many times the bandwidth that the lowest variant with pictures declares.
const MARGIN = 1.3;
/// Seconds of playing pictures after which earlier trials in vain are forgotten.
const CALM_S = 60;

/// Returns the state of a page that plays pictures.
export const begin = () => ({ choices: null, stalls: [], alone: null, trialAt: Infinity, pause: TRIAL_S, backAt: -Infinity });

/// Notes the variants of a multivariant playlist as hls.js has parsed them: the one without pictures and the lowest one with them, if
/// the stream has both. While the pictures are left out, hls.js reads no multivariant playlist.
export function offer(state, levels) {
  if (state.alone !== null) return;
  const hasPictures = (level) => Boolean(level.videoCodec || level.width);
  const least = (list) => list.reduce((low, level) => (level.bitrate < (low?.bitrate ?? Infinity) ? level : low), null);
  const [sound, pictures] = [least(levels.filter((level) => !hasPictures(level))), least(levels.filter(hasPictures))];
  state.choices = sound && pictures ? { sound: sound.url, pictures: pictures.url, bitrate: pictures.bitrate } : null;
}

/// Notes a stall at `now`.
export function noteStall(state, now) {
  state.stalls = [...state.stalls.filter((at) => now - at < WITHIN_S), now];
}

/// True if the page is to leave the pictures out: it is on the lowest variant with pictures, and `still` seconds without progress or
/// its stalls show that the network does not carry it.
export function isDue(state, { now, still, isLowest }) {
  if (now - state.backAt >= CALM_S) state.pause = TRIAL_S;
  const stalls = state.stalls.filter((at) => now - at < WITHIN_S).length;
  return state.alone === null && isLowest && (still >= STILL_S || stalls >= STALLS);
}

/// Leaves the pictures out from `now` on.
export function leave(state, now) {
  Object.assign(state, { alone: now, trialAt: now + state.pause, stalls: [] });
}

/// True once for each trial of the pictures: one segment of them is to be loaded.
export function isTrialDue(state, now) {
  if (state.alone === null || now < state.trialAt) return false;
  state.trialAt = Infinity;
  return true;
}

/// Takes the end of a trial: `bytes` in `took` seconds. Returns true if the pictures come back.
export function tried(state, { now, bytes, took, bitrate }) {
  state.pause = Math.min(MOST_TRIAL_S, state.pause * 2);
  if (bytes === 0 || bytes * 8 < bitrate * MARGIN * took) {
    state.trialAt = now + state.pause;
    return false;
  }
  Object.assign(state, { alone: null, trialAt: Infinity, stalls: [], backAt: now });
  return true;
}
