// The latency controller: it decides from one observation after another at which rate the page plays, when it skips forward,
// and how far behind the newest part it aims to be. It has no clock and no player, so that it can be simulated.

/// Seconds above the hold-back of the playlist at which the page aims: one part of 200 ms may come late without a stall.
export const MARGIN_S = 0.3;
/// The least target in seconds, for playlists without a hold-back.
const LEAST_TARGET_S = 1;
/// The most that stalls may add to the target in seconds. A network that needs more is too slow for the stream.
const MOST_RAISE_S = 4;
/// Seconds that a stall adds to the target.
const RAISE_S = 0.5;
/// Seconds that a calm time takes from a raised target, and its length: 0.1 s every 20 s undoes a stall within two minutes.
const LOWER_S = 0.1;
const CALM_S = 20;
/// The longest calm time before the target is lowered; each stall that follows a lowering doubles the calm time up to it.
const MOST_CALM_S = 320;
/// Buffered seconds that never ran out during a calm time whose target may be lowered.
const SPARE_S = 0.35;

/// Excess in seconds at which catching up begins, and at which it ends. Between the two nothing changes.
const CATCH_UP_FROM_S = 0.4;
const CATCH_UP_TO_S = 0.05;
/// Shortfall in seconds at which playing slower begins, and at which it ends.
const SLOW_FROM_S = 0.4;
const SLOW_TO_S = 0.05;
/// Seconds for which an excess or a shortfall has to last before the rate changes: single late parts change nothing.
const LASTS_S = 1;
/// Seconds for which a rate is kept at least.
const KEEP_S = 4;
/// Buffered seconds below which the page does not play faster.
const FAST_AHEAD_S = 0.4;
/// Excess in seconds above which the faster of the two rates is taken.
const FAR_S = 1;
/// Rates. Speech keeps its pitch, and up to a tenth listeners do not mind the tempo.
const [SLOW, FAST, FASTER] = [0.95, 1.05, 1.1];

/// Excess in seconds from which the page skips forward: at the faster rate less is caught up within 30 s.
const SKIP_FROM_S = 2.5;
/// Seconds for which such an excess has to last. The start of playing counts, too.
const SKIP_LASTS_S = 1;
/// Seconds above the target at which a keyframe is still worth a skip.
const SKIP_SLACK_S = 1;
/// Seconds for which the page waits for a keyframe near its target. Keyframes further apart are skipped to in between: the
/// decoder then works through the pictures since the last keyframe.
const SKIP_WAIT_S = 12;

/// Returns the state of a controller that has observed nothing yet.
export function begin() {
  return {
    mode: 'steady', rate: 1, raise: 0, calm: CALM_S, calmSince: null, lowered: false, leastAhead: Infinity,
    since: null, sign: 0, changedAt: -Infinity, farSince: null,
  };
}

/// Returns the target in seconds behind the newest part. `floor` is the hold-back of the playlist.
export const target = (state, floor) => Math.max(LEAST_TARGET_S, (floor || 0) + MARGIN_S) + state.raise;

function steady(state, now) {
  Object.assign(state, { mode: 'steady', rate: 1, changedAt: now, since: null, sign: 0 });
}

/// Raises the target after a stall and lowers it again after a calm time in which the buffer never came near its end.
function adapt(state, { now, stalled, ahead }) {
  if (stalled) {
    state.raise = Math.min(MOST_RAISE_S, state.raise + RAISE_S);
    state.calm = state.lowered ? Math.min(MOST_CALM_S, state.calm * 2) : state.calm;
    Object.assign(state, { calmSince: now, lowered: false, leastAhead: Infinity });
    return;
  }
  state.calmSince ??= now;
  state.leastAhead = Math.min(state.leastAhead, ahead);
  if (now - state.calmSince < state.calm) return;
  if (state.raise > 0 && state.leastAhead > SPARE_S) {
    state.raise = Math.max(0, state.raise - LOWER_S);
    state.lowered = true;
  }
  Object.assign(state, { calmSince: now, leastAhead: Infinity });
}

/// Returns the seconds by which the page skips forward, 0 for none.
function skip(state, { now, latency, ahead, keyframe }, aim) {
  const excess = latency - aim;
  if (excess < SKIP_FROM_S) {
    state.farSince = null;
    return 0;
  }
  state.farSince ??= now;
  if (now - state.farSince < SKIP_LASTS_S) return 0;
  // A keyframe is buffered from its distance to the newest part down to nothing; only what is buffered can be skipped to.
  const reach = latency - ahead;
  const near = Number.isFinite(keyframe) && keyframe >= Math.max(reach + FAST_AHEAD_S, aim - SKIP_SLACK_S / 2)
    && keyframe <= aim + SKIP_SLACK_S;
  if (near && latency - keyframe > SKIP_FROM_S / 2) return latency - keyframe;
  if (now - state.farSince < SKIP_WAIT_S || reach + FAST_AHEAD_S > aim) return 0;
  return excess;
}

/// Chooses the mode by how long the latency has been off the target to one side.
function choose(state, { now, ahead }, excess) {
  const sign = excess > CATCH_UP_FROM_S ? 1 : excess < -SLOW_FROM_S ? -1 : 0;
  if (sign !== state.sign) Object.assign(state, { sign, since: now });
  if (sign === 0 || now - state.since < LASTS_S || now - state.changedAt < KEEP_S) return;
  if (sign > 0 && ahead > FAST_AHEAD_S) {
    Object.assign(state, { mode: 'faster', rate: excess > FAR_S ? FASTER : FAST, changedAt: now });
  } else if (sign < 0) {
    Object.assign(state, { mode: 'slower', rate: SLOW, changedAt: now });
  }
}

/// Takes one observation: `now` in seconds, `latency` in seconds behind the newest part, `ahead` in buffered seconds before the
/// playhead, `floor` (the playlist's hold-back), `stalled` (true once per stall), and `keyframe`, the distance in seconds of the
/// newest keyframe to the newest part, if known. Returns the rate and the seconds to skip forward.
export function step(state, seen) {
  adapt(state, seen);
  const aim = target(state, seen.floor);
  const skipped = skip(state, seen, aim);
  if (skipped > 0) {
    steady(state, seen.now);
    state.farSince = null;
    return { rate: 1, skip: skipped, target: aim };
  }
  const excess = seen.latency - aim;
  if (state.mode === 'steady') choose(state, seen, excess);
  else if (state.mode === 'faster' && (excess < CATCH_UP_TO_S || seen.ahead < FAST_AHEAD_S / 2)) steady(state, seen.now);
  else if (state.mode === 'slower' && excess > -SLOW_TO_S) steady(state, seen.now);
  return { rate: state.rate, skip: 0, target: aim };
}
