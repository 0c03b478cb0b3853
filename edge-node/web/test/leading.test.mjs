// Parts of an open GOP, written as Millrace writes them, lose their leading pictures at a join and keep them otherwise.
import assert from 'node:assert/strict';
import test from 'node:test';
import { Leading } from '../src/leading.js';

const [SYNC, DELTA] = [0x0200_0000, 0x0101_0000];
const FRAME = 3000;

const u32 = (...values) => values.flatMap((value) => [24, 16, 8, 0].map((shift) => (value >> shift) & 0xff));
const box = (name, ...content) => {
  const body = content.flat();
  return [...u32(body.length + 8), ...[...name].map((letter) => letter.charCodeAt(0)), ...body];
};

/// A part of samples `{type, cts, size}`; each sample's bytes are its number.
function part(start, samples) {
  const trun = (offset) => box('trun', u32(0x0100_0e01, samples.length, offset),
    samples.flatMap(({ type, cts, size }) => u32(size, type === 'sync' ? SYNC : DELTA, cts)));
  const moof = (offset) => box('moof', box('mfhd', u32(0, 1)), box('traf',
    box('tfhd', u32(0x2_0028, 1, FRAME, DELTA)), box('tfdt', u32(0x0100_0000, 0, start)), trun(offset)));
  const flags = samples.map(({ nal, size }, index) => [...u32(size - 4), nal, ...Array(size - 5).fill(index)]);
  return new Uint8Array([...moof(moof(0).length + 8), ...box('mdat', flags.flat())]).buffer;
}

const IDR = { type: 'sync', nal: 0x65, cts: 2 * FRAME, size: 20 };
const RECOVERY = { type: 'sync', nal: 0x61, cts: 3 * FRAME, size: 30 };
const B = (cts) => ({ type: 'delta', nal: 0x01, cts, size: 10 });
const P = { type: 'delta', nal: 0x61, cts: 3 * FRAME, size: 12 };
const OPEN = [RECOVERY, B(0), B(0), P, B(0)];

test('leading_pictures_of_the_first_part_are_removed_and_their_time_goes_to_the_keyframe', () => {
  const leading = new Leading();
  const trimmed = leading.trim(part(90_000, OPEN));
  // Three samples are left; the keyframe lasts as long as itself and both leading pictures.
  const expected = part(90_000, OPEN).byteLength - 20;
  const view = new DataView(trimmed);
  const text = Buffer.from(trimmed).toString('latin1');
  const trun = text.indexOf('trun');
  assert.equal(view.getUint32(trun + 8), 3);
  assert.equal(view.getUint32(trun + 16), 3 * FRAME);
  assert.equal(view.getUint32(trun + 32), FRAME);
  const mdat = text.indexOf('mdat');
  assert.equal(view.getUint32(mdat - 4), 8 + 30 + 12 + 10);
  assert.equal(view.getUint32(trun + 12), mdat + 4, 'the data offset leads to the samples');
  assert.equal(text.charCodeAt(mdat + 4 + 30 + 5), 3, 'the picture behind the keyframe is the fourth of the part');
  assert.ok(trimmed.byteLength < expected + 3 * 16, `${trimmed.byteLength}`);
  assert.ok(leading.isOpen);
});

test('later_parts_of_the_same_run_and_closed_gops_stay_as_they_are', () => {
  const leading = new Leading();
  leading.trim(part(90_000, OPEN));
  const next = part(90_000 + 5 * FRAME, OPEN);
  assert.equal(leading.trim(next), next);
  const closed = part(500_000, [IDR, P, B(0)]);
  const fresh = new Leading();
  assert.equal(fresh.trim(closed), closed);
  assert.ok(!fresh.isOpen);
});

test('leading_pictures_that_reach_into_the_next_part_are_removed_there_too', () => {
  const leading = new Leading();
  leading.trim(part(90_000, [RECOVERY, B(0)]));
  const next = part(90_000 + 2 * FRAME, [B(-FRAME), P, B(0)]);
  assert.ok(leading.trim(next).byteLength < next.byteLength + 12);
});

test('bytes_that_are_no_part_stay_as_they_are', () => {
  for (const bytes of [new Uint8Array(0), new Uint8Array(40), new Uint8Array(part(0, OPEN)).slice(0, 60)]) {
    assert.equal(new Leading().trim(bytes.buffer), bytes.buffer);
  }
});
