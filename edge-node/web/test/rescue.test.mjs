// The change to audio alone and back.
import assert from 'node:assert/strict';
import test from 'node:test';
import { begin, isDue, isTrialDue, leave, noteStall, offer, tried } from '../src/rescue.js';
import { newestSegment } from '../src/trial.js';

const PICTURES = { url: 'video/index.m3u8', bitrate: 1_600_000, videoCodec: 'avc1.64001f', width: 640 };
const LOWER = { url: '144p/index.m3u8', bitrate: 300_000, videoCodec: 'avc1.64000c', width: 256 };
const SOUND = { url: 'audio/index.m3u8', bitrate: 100_000, audioCodec: 'mp4a.40.2', width: 0 };

test('choices are the variant without pictures and the lowest with them', () => {
  const choices = (levels) => {
    const state = begin();
    offer(state, levels);
    return state.choices;
  };
  assert.deepEqual(choices([PICTURES, SOUND, LOWER]), { sound: SOUND.url, pictures: LOWER.url, bitrate: LOWER.bitrate });
  assert.equal(choices([PICTURES, LOWER]), null);
  assert.equal(choices([SOUND]), null);
});

test('pictures are left out on the lowest variant only, after a long pause or several stalls', () => {
  const seen = { now: 10, still: 0, isLowest: true };
  assert.equal(isDue(begin(), { ...seen, still: 1.9 }), false);
  assert.equal(isDue(begin(), { ...seen, still: 2 }), true);
  assert.equal(isDue(begin(), { ...seen, still: 5, isLowest: false }), false);
  const state = begin();
  for (const at of [1, 5, 9]) noteStall(state, at);
  assert.equal(isDue(state, seen), true);
  assert.equal(isDue(state, { ...seen, now: 22 }), false);
});

test('trials in vain come at growing distances, and a fast one brings the pictures back', () => {
  const state = begin();
  leave(state, 100);
  const times = [];
  for (let now = 100; times.length < 5; now += 1) {
    if (!isTrialDue(state, now)) continue;
    times.push(now);
    assert.equal(tried(state, { now, bytes: 10_000, took: 3, bitrate: 300_000 }), false);
  }
  assert.deepEqual(times.map((at, n) => at - (times[n - 1] ?? 100)), [8, 16, 32, 64, 64]);
  assert.equal(tried(state, { now: 400, bytes: 75_000, took: 1.5, bitrate: 300_000 }), true);
  assert.equal(isTrialDue(state, 1_000), false);
  // A return that does not last is followed by a longer time of audio alone, a calm one is forgotten.
  assert.equal(isDue(state, { now: 410, still: 3, isLowest: true }), true);
  leave(state, 410);
  assert.equal(state.trialAt, 474);
  assert.equal(tried(state, { now: 474, bytes: 75_000, took: 1.5, bitrate: 300_000 }), true);
  isDue(state, { now: 534, still: 0, isLowest: true });
  leave(state, 600);
  assert.equal(state.trialAt, 608);
});

test('newest segment is complete and no GAP', () => {
  const head = '#EXTM3U\n#EXT-X-MAP:URI="1/init-0.mp4"\n#EXTINF:2,\n1/7.1.m4s\n';
  assert.equal(newestSegment(`${head}#EXTINF:2,\n1/8.1.m4s\n#EXT-X-PART:DURATION=0.2,URI="1/9.1.0.m4s"\n`), '1/8.1.m4s');
  assert.equal(newestSegment(`${head}#EXT-X-GAP\n#EXTINF:2,\n1/8.0.m4s\n`), null);
  assert.equal(newestSegment('#EXTM3U\n'), null);
});
