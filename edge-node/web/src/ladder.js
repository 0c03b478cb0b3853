// The choice of the variant that plays. hls.js measures one part of each segment once it is behind the newest part, and weighs its
// measures by the time they took: what a fast network has left in its estimate outlasts a buffer of one second. This page measures
// every part, by its share of the media. Pure functions: no clock, no player, no network.

/// Half-lives of the two estimates in seconds of media. The lower one counts: it falls with the first and rises with the second.
const [FAST_S, SLOW_S] = [1, 4];
/// Measures before the estimates count.
const LEAST_SAMPLES = 3;
/// Requests whose least time to the first byte counts as the network's latency.
const FIRSTS = 20;
/// A load that took less is not measured more exactly, in seconds.
const LEAST_S = 0.001;
/// A variant may need this share of the bandwidth: to play on, to be moved down to, to be moved up to.
const [STAY, DOWN, UP] = [0.95, 0.85, 0.7];
/// Seconds after a move down before one up. A move up that is taken back within so many seconds doubles them, up to the most.
const CALM_S = 6;
const FAILED_S = 20;
const MOST_CALM_S = 60;
/// Below so many times the bandwidth that the variant needs, or on a lower variant than the best, the player keeps more seconds
/// buffered: a variant can be left at the end of a segment only, and until then a network that has become slow delivers too little.
const THIN = 2.5;
const SPARE_S = 1.5;
/// Seconds for which the network has to be wide before these go.
const WIDE_S = 30;

/// Returns the state of a page that has loaded nothing yet.
export const begin = () => ({
  fast: { bits: 0, seconds: 0 }, slow: { bits: 0, seconds: 0 }, samples: 0, firsts: [],
  upAt: -Infinity, downAt: -Infinity, calm: CALM_S, thinAt: -Infinity,
});

/// Takes a load of pictures: `bytes` of `media` seconds in `took` seconds, of which `first` until the first byte.
export function sample(state, { bytes, media, took, first }) {
  if (!(bytes > 0 && media > 0 && took >= 0)) return;
  state.firsts = [...state.firsts, first].slice(-FIRSTS);
  const seconds = Math.max(LEAST_S, took - Math.min(first, ...state.firsts));
  state.samples += 1;
  for (const [mean, halfLife] of [[state.fast, FAST_S], [state.slow, SLOW_S]]) {
    const kept = 0.5 ** (media / halfLife);
    mean.bits = mean.bits * kept + bytes * 8;
    mean.seconds = mean.seconds * kept + seconds;
  }
}

/// Returns the bandwidth in bits per second, `null` while it is unknown.
export function bandwidth({ samples, fast, slow }) {
  return samples < LEAST_SAMPLES ? null : Math.min(fast.bits / fast.seconds, slow.bits / slow.seconds);
}

/// Returns the index of the variant to load next; `null` while the bandwidth is unknown. `rungs` are the variants by bandwidth, each
/// with its `peak` and `average` in bits per second, and `current` is the index of the one that was loaded last.
export function choose(state, { rungs, current, now }) {
  const found = bandwidth(state);
  if (found === null || !rungs[current]) return null;
  const last = (fits) => rungs.findLastIndex(fits);
  if (rungs[current].average > found * STAY) {
    return Math.max(0, last(({ average }, index) => index < current && average <= found * DOWN));
  }
  if (now - state.downAt < state.calm) return current;
  return Math.max(current, last(({ peak }) => peak <= found * UP));
}

/// Takes a move from one variant to another.
export function moved(state, { from, to, now }) {
  if (to > from) state.upAt = now;
  if (to >= from) return;
  state.calm = now - state.upAt < FAILED_S ? Math.min(MOST_CALM_S, state.calm * 2) : CALM_S;
  state.downAt = now;
}

/// Returns the seconds of media to keep buffered beside the usual ones.
export function spare(state, { rungs, current, now }) {
  const found = bandwidth(state);
  if (rungs.length < 2 || found === null || !rungs[current]) return 0;
  if (current < rungs.length - 1 || found < rungs[current].average * THIN) state.thinAt = now;
  return now - state.thinAt < WIDE_S ? SPARE_S : 0;
}
