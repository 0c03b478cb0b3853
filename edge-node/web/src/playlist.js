// What a media playlist, as hls.js has parsed it, says about joining, silence and tracks. Pure functions over its details:
// times are seconds on the player's timeline.

/// The share of the target latency that a keyframe may be short of it and still be the place to join: playing a little slower
/// makes up for it, whereas the keyframe before it is a whole interval older.
export const EARLY_SHARE = 0.6;

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

/// Returns the time of the newest independent part at which playing can begin `aim` seconds behind `edge`; `null` for none.
export function joinAt(details, edge, aim) {
  return keyframes(details).findLast((at) => edge - at >= aim * EARLY_SHARE) ?? null;
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
  const last = details.partList?.at(-1);
  return last ? !real(last) || !real(last.fragment) : Boolean(details.fragments.at(-1)?.gap);
}

const path = (url, base) => new URL(url, base).pathname;

/// Returns the playlists that a media playlist reports (EXT-X-RENDITION-REPORT) and the player does not know. `known` are the
/// addresses of its playlists.
export function unknownReports(details, known) {
  const paths = new Set(known.map((url) => path(url, details.url)));
  return (details.renditionReports ?? []).map((report) => path(report.URI, details.url)).filter((uri) => !paths.has(uri));
}
