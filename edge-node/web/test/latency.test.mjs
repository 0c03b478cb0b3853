// The latency controller against simulated networks. A failing seed is part of the message: `SEED=… node --test` replays it.
import assert from 'node:assert/strict';
import test from 'node:test';
import { MARGIN_S, begin, step, target } from '../src/latency.js';

const FLOOR = 0.9;
const PART = 0.2;
const TICK = 0.25;

/// mulberry32: small, seeded, good enough for jitter.
function random(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/// Plays `seconds` of a stream whose parts come `delay(n)` seconds after their end, from `latency` seconds behind.
function play({ seconds, latency, delay, gop = 2, state = begin() }) {
  const seen = { rates: [], skips: [], stalls: 0, latencies: [], state };
  let [head, arrived, waiting, stalledNow] = [-latency, 0, false, false];
  const due = [];
  for (let n = 0; n < seconds / PART + 1; n++) {
    const at = (n + 1) * PART + delay(n);
    due.push(Math.max(at, due.at(-1) ?? 0));
  }
  for (let now = 0; now < seconds; now += 0.02) {
    while (due[arrived] <= now) arrived += 1;
    const buffered = arrived * PART;
    // A stall ends when half a second is buffered again, as browsers do it roughly.
    if (head >= buffered && !waiting) { waiting = true; stalledNow = true; seen.stalls += 1; }
    if (waiting && buffered - head > 0.1) waiting = false;
    if (!waiting) head = Math.min(buffered, head + 0.02 * (seen.rates.at(-1)?.rate ?? 1));
    if (Math.floor(now / TICK) !== Math.floor((now - 0.02) / TICK)) {
      const behind = now - head;
      const keyframe = now - Math.floor(buffered / gop) * gop;
      const told = step(state, { now, latency: behind, ahead: buffered - head, floor: FLOOR, stalled: stalledNow, keyframe });
      stalledNow = false;
      if (told.skip > 0) { head += told.skip; seen.skips.push({ now, by: told.skip }); }
      if ((seen.rates.at(-1)?.rate ?? 1) !== told.rate) seen.rates.push({ now, rate: told.rate });
      seen.latencies.push(now - head);
    }
  }
  return seen;
}

const seeds = process.env.SEED ? [Number(process.env.SEED)] : Array.from({ length: 200 }, (_, i) => i + 1);

test('rate_of_a_steady_network_changes_twice_at_most_and_the_latency_meets_its_target', () => {
  for (const latency of [1.0, 1.5, 2.4, 3.4]) {
    const seen = play({ seconds: 60, latency, delay: () => 0.05 });
    assert.ok(seen.rates.length <= 2, `${latency}: ${JSON.stringify(seen.rates)}`);
    assert.equal(seen.stalls, 0);
    const last = seen.latencies.at(-1);
    assert.ok(Math.abs(last - target(seen.state, FLOOR)) <= 0.45, `${latency}: ends ${last} s behind`);
  }
});

test('rate_under_jitter_changes_at_most_six_times_a_minute_and_never_flips_within_four_seconds', () => {
  for (const seed of seeds) {
    const next = random(seed);
    const jitter = 0.05 + next() * 0.25;
    const seen = play({ seconds: 300, latency: 1 + next() * 8, delay: () => 0.03 + next() * jitter });
    assert.ok(seen.rates.length <= 30, `seed ${seed}: ${seen.rates.length} changes`);
    const engaged = seen.rates.filter((change) => change.rate !== 1);
    for (let i = 1; i < engaged.length; i++) {
      assert.ok(engaged[i].now - engaged[i - 1].now >= 4, `seed ${seed}: ${JSON.stringify(engaged.slice(i - 1, i + 1))}`);
    }
    const after = seen.latencies.slice(30 / TICK);
    const mean = after.reduce((sum, value) => sum + value, 0) / after.length;
    assert.ok(mean < target(seen.state, FLOOR) + 0.5, `seed ${seed}: ${mean} s behind on average`);
  }
});

test('excess_of_a_long_keyframe_interval_is_gone_within_thirty_seconds', () => {
  for (const gop of [2, 4, 8.3, 20]) {
    for (const latency of [2, 3.5, 5, 9.2, 14]) {
      const seen = play({ seconds: 40, latency, gop, delay: () => 0.05 });
      const at = seen.latencies[30 / TICK];
      assert.ok(at < target(seen.state, FLOOR) + 1.1, `gop ${gop}, ${latency} s behind: still ${at} s after 30 s`);
      assert.ok(seen.skips.length <= 1, `gop ${gop}, ${latency}: ${seen.skips.length} skips`);
      assert.equal(seen.stalls, 0, `gop ${gop}, ${latency}`);
    }
  }
});

test('stalls_raise_the_target_and_calm_lowers_it_to_where_it_was', () => {
  const state = begin();
  const first = target(state, FLOOR);
  assert.equal(first, FLOOR + MARGIN_S);
  // A second of no parts every ten seconds, for a minute; then ten minutes without any.
  play({ seconds: 60, latency: first, state, delay: (n) => (n % 50 === 49 ? 1.4 : 0.02) });
  const raised = target(state, FLOOR);
  assert.ok(raised > first + 0.4, `${raised}`);
  state.calmSince = state.since = state.farSince = null;
  state.changedAt = -Infinity;
  play({ seconds: 900, latency: raised, state, delay: () => 0.02 });
  assert.ok(target(state, FLOOR) < first + 0.05, `${target(state, FLOOR)}`);
});

test('a_network_that_pauses_for_a_second_now_and_then_settles_instead_of_stalling_for_ever', () => {
  for (const seed of seeds.slice(0, 40)) {
    const next = random(seed);
    const delay = () => (next() < 0.01 ? 1.2 : 0.05);
    const state = begin();
    play({ seconds: 300, latency: 1.2, state, delay });
    Object.assign(state, { calmSince: null, since: null, farSince: null, changedAt: -Infinity });
    const seen = play({ seconds: 300, latency: target(state, FLOOR), state, delay });
    assert.ok(seen.stalls <= 10, `seed ${seed}: ${seen.stalls} stalls in the second five minutes`);
  }
});

test('target_has_a_bound_however_often_the_player_stalls', () => {
  const state = begin();
  for (let now = 0; now < 100; now += 1) step(state, { now, latency: 2, ahead: 0, floor: FLOOR, stalled: true });
  assert.ok(target(state, FLOOR) <= FLOOR + MARGIN_S + 4);
});
