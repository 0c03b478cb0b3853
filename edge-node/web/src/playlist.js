// What a media playlist, as hls.js has parsed it, says about joining, silence and tracks. Pure functions over its details:
// times are seconds on the player's timeline.

/// The share of the target latency that a keyframe may be short of it and still be the place to join: playing a little slower
/// makes up for it, whereas the keyframe before it is a whole interval older.
export const EARLY_SHARE = 0.6;

/// Seconds by which sums of durations may differ.
const ROUNDING_S = 0.01;

const real = (piece) => !piece.gap;

/// Returns a number that grows with each part or segment that has media; -1 without any. A segment whose parts have been
/// listed adds nothing.
export function newest(details) {
  const part = details.partList?.findLast((part) => real(part) && real(part.fragment));
  const segment = details.fragments.findLast(real);
  if (part && !(segment?.sn > part.fragment.sn)) return part.fragment.sn * 1000 + part.index;
  return segment ? segment.sn * 1000 : -1;
}

/// Returns the times of the independent parts, oldest first.
export const keyframes = (details) =>
  (details.partList ?? []).filter((part) => part.independent && real(part) && real(part.fragment)).map((part) => part.start);

/// Returns the time of the independent part at which playing begins: the newest one that is `aim` seconds behind `edge`. Behind
/// GAPs the first one will do, however new, and a playlist that ends in GAPs is joined at its last picture. `null` leaves the
/// choice to hls.js.
export function joinAt(details, edge, aim) {
  const times = keyframes(details);
  if (endsInGap(details)) return times.at(-1) ?? null;
  const gap = details.fragments.findLast((fragment) => fragment.gap)?.end ?? -Infinity;
  const after = times.filter((at) => at >= gap - ROUNDING_S);
  return after.findLast((at) => edge - at >= aim * EARLY_SHARE) ?? (gap > edge - aim - details.targetduration ? after[0] ?? null : null);
}

/// Returns the time at which playing goes on after the GAPs behind `from`; `null` if no media follows any.
export function afterGap(details, from) {
  const { fragments } = details;
  const gap = fragments.findLastIndex((fragment) => fragment.gap && fragment.end > from);
  const at = fragments.slice(gap + 1).find(real)?.start ?? keyframes(details).find((start) => start > from);
  return gap >= 0 && at > from ? at : null;
}

/// Returns true if the newest thing listed is a GAP: the publisher is away and the playlist grows without it.
export function endsInGap(details) {
  const [part, segment] = [details.partList?.at(-1), details.fragments.at(-1)];
  const last = part && !(segment?.sn > part.fragment.sn) ? [part, part.fragment] : [segment];
  return last.some((piece) => piece?.gap);
}

const path = (url, base) => new URL(url, base).pathname;

/// Returns the playlists that a media playlist reports (EXT-X-RENDITION-REPORT) and the player does not know. `known` are the
/// addresses of its playlists.
export function unknownReports(details, known) {
  const paths = new Set(known.map((url) => path(url, details.url)));
  return (details.renditionReports ?? []).map((report) => path(report.URI, details.url)).filter((uri) => !paths.has(uri));
}

/// Returns the seconds by which the times of a variant's playlist are to be moved: equal media sequence numbers are equal media times in
/// all variants, and `loaded` is the playlist of the variant before, with the times at which its segments were found. hls.js takes the
/// times of a segment that it has not loaded, which may be milliseconds off: then it loads the last segment of the variant before once
/// more, and a browser that has begun to play it has no pictures until the next one.
export function misplaced(details, loaded) {
  if (!loaded || details.fragments.some((fragment) => Number.isFinite(fragment.startPTS))) return 0;
  const found = loaded.fragments.findLast((fragment) => Number.isFinite(fragment.startPTS));
  const same = found && details.fragments.find((fragment) => fragment.sn === found.sn && fragment.cc === found.cc);
  return same ? found.startPTS - same.start : 0;
}
