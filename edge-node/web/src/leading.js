// Joining an open GOP. The pictures that follow its keyframe in the stream and precede it on the screen refer to the GOP before.
// Chromium's decoder fails at them after a start (crbug.com/40625346), so the first part of a run goes to it without them.

const NAL_IDR = 5;
const NAL_SLICE = 1;
const SYNC_FLAGS = 0x0200_0000;
const DELTA_FLAGS = 0x0101_0000;
const NON_SYNC = 0x1_0000;
/// trun: data offset, and duration, size, flags and composition offset of each sample (ISO/IEC 14496-12, 8.8.8).
const TRUN = { offset: 0x1, first: 0x4, duration: 0x100, size: 0x200, flags: 0x400, cts: 0x800 };
const ALL = TRUN.offset | TRUN.duration | TRUN.size | TRUN.flags | TRUN.cts;

/// Returns the boxes between two places: name to start of the box, start of its content, and end.
function boxes(view, from, to) {
  const found = {};
  for (let at = from; at + 8 <= to;) {
    const size = view.getUint32(at);
    if (size < 8 || at + size > to) break;
    const name = String.fromCharCode(...[4, 5, 6, 7].map((byte) => view.getUint8(at + byte)));
    found[name] = { start: at, body: at + 8, end: at + size };
    at += size;
  }
  return found;
}

/// Reads a part of one track: its boxes and its samples with decoding and presentation times. `null` for anything else.
function read(view) {
  const top = boxes(view, 0, view.byteLength);
  const traf = top.moof && boxes(view, top.moof.body, top.moof.end).traf;
  const inner = traf && boxes(view, traf.body, traf.end);
  if (!inner?.tfhd || !inner.tfdt || !inner.trun || !top.mdat) return null;
  const header = view.getUint32(inner.tfhd.body) & 0xffffff;
  let at = inner.tfhd.body + 8 + (header & 0x1 ? 8 : 0) + (header & 0x2 ? 4 : 0);
  const given = {};
  for (const [bit, name] of [[0x8, 'duration'], [0x10, 'size'], [0x20, 'flags']]) {
    if (header & bit) { given[name] = view.getUint32(at); at += 4; }
  }
  const wide = view.getUint8(inner.tfdt.body) === 1;
  const start = wide ? Number(view.getBigUint64(inner.tfdt.body + 4)) : view.getUint32(inner.tfdt.body + 4);
  const flags = view.getUint32(inner.trun.body) & 0xffffff;
  const count = view.getUint32(inner.trun.body + 4);
  at = inner.trun.body + 8 + (flags & TRUN.offset ? 4 : 0);
  const first = flags & TRUN.first ? view.getUint32(at) : null;
  if (first !== null) at += 4;
  const samples = [];
  for (let index = 0, dts = start, place = top.mdat.body; index < count; index++) {
    const sample = { ...given, cts: 0, dts, place };
    for (const name of ['duration', 'size', 'flags', 'cts']) {
      if (!(flags & TRUN[name])) continue;
      sample[name] = name === 'cts' ? view.getInt32(at) : view.getUint32(at);
      at += 4;
    }
    if (index === 0 && first !== null) sample.flags = first;
    samples.push(sample);
    dts += sample.duration;
    place += sample.size;
  }
  return { top, samples, start, end: samples.reduce((time, sample) => time + sample.duration, start) };
}

/// Returns the type of the first slice of a sample with NAL units behind four bytes of length each.
function sliceType(view, { place, size }) {
  for (let at = place; at + 5 <= place + size; at += 4 + view.getUint32(at)) {
    const type = view.getUint8(at + 4) & 0x1f;
    if (type === NAL_SLICE || type === NAL_IDR) return type;
  }
  return null;
}

/// Writes a part of the kept samples. The last one before a removed sample lasts as long as both.
function write(bytes, view, part, kept) {
  const traf = boxes(view, part.top.moof.body, part.top.moof.end).traf;
  const inner = boxes(view, traf.body, traf.end);
  const trun = 8 + 12 + 16 * kept.length;
  const cut = trun - (inner.trun.end - inner.trun.start);
  const head = part.top.mdat.start;
  const media = kept.reduce((sum, sample) => sum + sample.size, 0);
  const out = new Uint8Array(head + cut + 8 + media);
  const to = new DataView(out.buffer);
  out.set(bytes.subarray(0, inner.trun.start));
  out.set(bytes.subarray(inner.trun.end, head), inner.trun.end + cut);
  to.setUint32(part.top.moof.start, view.getUint32(part.top.moof.start) + cut);
  to.setUint32(traf.start, view.getUint32(traf.start) + cut);
  to.setUint32(inner.trun.start, trun);
  out.set(bytes.subarray(inner.trun.start + 4, inner.trun.start + 8), inner.trun.start + 4);
  const fields = [0x0100_0000 | ALL, kept.length, head + cut + 8 - part.top.moof.start];
  for (const sample of kept) fields.push(sample.duration, sample.size, sample.flags ?? DELTA_FLAGS, sample.cts);
  fields.forEach((field, index) => to.setInt32(inner.trun.start + 8 + 4 * index, field | 0));
  let place = head + cut;
  to.setUint32(place, 8 + media);
  out.set(bytes.subarray(part.top.mdat.start + 4, part.top.mdat.start + 8), place + 4);
  place += 8;
  for (const sample of kept) {
    out.set(bytes.subarray(sample.place, sample.place + sample.size), place);
    place += sample.size;
  }
  return out.buffer;
}

/// Removes leading pictures from the parts of an H.264 track in the order they are loaded.
export class Leading {
  #end = NaN;
  /// The presentation time of the keyframe whose leading pictures are being removed.
  #joined = null;
  /// True once a run of parts has begun with a keyframe that is no IDR picture: no place inside the buffer can be sought to.
  isOpen = false;

  /// Takes the bytes of a part and returns those to append.
  trim(buffer) {
    const bytes = new Uint8Array(buffer);
    const view = new DataView(buffer);
    const part = read(view);
    if (!part || part.samples.length === 0) return buffer;
    const [first] = part.samples;
    if (part.start !== this.#end) this.#joined = this.#isOpenKeyframe(view, first) ? first.dts + first.cts : null;
    this.#end = part.end;
    if (this.#joined === null) return buffer;
    this.isOpen = true;
    const leads = (sample) => sample.dts + sample.cts < this.#joined;
    const kept = [];
    for (const sample of part.samples) {
      if (!leads(sample)) kept.push({ ...sample });
      else if (kept.length > 0) kept.at(-1).duration += sample.duration;
    }
    // The first picture shown after the keyframe ends the leading ones.
    if (kept.some((sample) => sample.dts + sample.cts > this.#joined)) this.#joined = null;
    return kept.length === part.samples.length || kept.length === 0 ? buffer : write(bytes, view, part, kept);
  }

  #isOpenKeyframe(view, sample) {
    return ((sample.flags ?? SYNC_FLAGS) & NON_SYNC) === 0 && sliceType(view, sample) === NAL_SLICE;
  }
}
