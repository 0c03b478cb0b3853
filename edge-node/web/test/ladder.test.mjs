// The choice of the variant by what the network delivers.
import assert from 'node:assert/strict';
import test from 'node:test';
import { bandwidth, begin, choose, moved, sample, spare } from '../src/ladder.js';

const RUNGS = [{ peak: 740_000, average: 700_000 }, { peak: 1_480_000, average: 1_400_000 }, { peak: 4_000_000, average: 3_200_000 }];
const PART_S = 0.2;
const LATENCY_S = 0.02;

/// Loads one part of `bits` per second over a network of `network` bits per second.
const load = (state, bits, network) => sample(state, {
  bytes: bits * PART_S / 8, media: PART_S, first: LATENCY_S, took: LATENCY_S + bits * PART_S / network,
});

/// Plays over the rates of `network(seconds)` for so many seconds as hls.js does, which changes the variant between segments of 2 s
/// only. Returns the variants with the times at which they were moved to.
function play(network, length, from = 2) {
  const state = begin();
  const moves = [];
  let current = from;
  for (let part = 0; part * PART_S < length; part += 1) {
    const now = part * PART_S;
    if (part % 10 === 0) {
      const next = choose(state, { rungs: RUNGS, current, now });
      if (next !== null && next !== current) {
        moved(state, { from: current, to: next, now });
        moves.push([next, now]);
        current = next;
      }
    }
    load(state, RUNGS[current].average, network(now));
  }
  return moves;
}

test('bandwidth is known after three loads, the latency of the network left out', () => {
  const state = begin();
  assert.equal(choose(state, { rungs: RUNGS, current: 1, now: 0 }), null);
  for (let count = 0; count < 3; count += 1) load(state, 1_400_000, 2_000_000);
  assert.ok(Math.abs(bandwidth(state) - 2_000_000) < 20_000, bandwidth(state));
});

test('a variant that the network no longer carries is left at the end of the segment, however fast it was before', () => {
  for (const before of [8_000_000, 100_000_000, 1_000_000_000]) {
    const moves = play((now) => (now < 10.4 ? before : 2_200_000), 20);
    assert.deepEqual(moves, [[1, 12]], `${before}: ${JSON.stringify(moves)}`);
  }
});

test('a network of a third of what plays is left for the lowest variant at once', () => {
  assert.deepEqual(play((now) => (now < 10.4 ? 8_000_000 : 1_000_000), 20), [[0, 12]]);
});

test('a faster network is followed up within ten seconds, and not before the calm time', () => {
  const moves = play((now) => (now < 10 ? 2_200_000 : now < 20 ? 1_100_000 : 9_000_000), 60);
  assert.deepEqual(moves.map(([rung]) => rung).slice(0, 2), [1, 0]);
  const [, , [rung, at], ...rest] = moves;
  assert.ok(rung > 0 && at >= 20 && at <= 30, JSON.stringify(moves));
  assert.equal(rest.length > 0 ? rest.at(-1)[0] : rung, 2, JSON.stringify(moves));
});

test('a network between two variants moves the page at growing distances only', () => {
  // Fast while little is asked of it.
  const state = begin();
  let current = 1;
  const ups = [];
  for (let part = 0; part < 600; part += 1) {
    const now = part * PART_S;
    const next = part % 10 === 0 ? choose(state, { rungs: RUNGS, current, now }) ?? current : current;
    if (next !== current) moved(state, { from: current, to: next, now });
    if (next > current) ups.push(now);
    current = next;
    load(state, RUNGS[current].average, current === 2 ? 2_500_000 : 7_000_000);
  }
  const pauses = ups.slice(1).map((at, index) => at - ups[index]);
  assert.ok(ups.length <= 6 && pauses.every((pause, index) => index === 0 || pause >= pauses[index - 1]), JSON.stringify(ups));
});

test('one late part moves nothing', () => {
  const state = begin();
  for (let count = 0; count < 20; count += 1) load(state, 1_400_000, 20_000_000);
  load(state, 1_400_000, 500_000);
  assert.equal(choose(state, { rungs: RUNGS, current: 1, now: 4 }), 1);
});

test('more is kept buffered while the network is thin, and for half a minute after', () => {
  const state = begin();
  const seen = (now, current = 2) => spare(state, { rungs: RUNGS, current, now });
  assert.equal(seen(0), 0);
  for (let count = 0; count < 30; count += 1) load(state, 3_200_000, 20_000_000);
  assert.equal(seen(1), 0);
  assert.equal(seen(2, 1), 1.5, 'on a lower variant');
  assert.equal(seen(31), 1.5);
  assert.equal(seen(33), 0);
  for (let count = 0; count < 30; count += 1) load(state, 3_200_000, 5_000_000);
  assert.equal(seen(40), 1.5);
  assert.equal(spare(state, { rungs: RUNGS.slice(0, 1), current: 0, now: 41 }), 0, 'nothing to move to');
});
