// The trial of the pictures while the page plays audio alone: one segment is loaded, and the time it takes is measured.

/// Seconds after which a trial is in vain: the segment has 2 s of media.
const LIMIT_S = 3;

/// Returns the newest complete segment that a media playlist lists, or `null`.
export function newestSegment(text) {
  const lines = text.split('\n').map((line) => line.trim());
  const at = lines.findLastIndex((line) => line !== '' && !line.startsWith('#'));
  if (at < 0) return null;
  const before = lines.slice(0, at).findLastIndex((line) => line !== '' && !line.startsWith('#'));
  return lines.slice(before + 1, at).includes('#EXT-X-GAP') ? null : lines[at];
}

/// Loads the newest segment of a media playlist, and returns its bytes and the seconds that it took; no bytes if it did not come
/// in time.
export async function load(playlist) {
  const signal = AbortSignal.timeout(LIMIT_S * 1000);
  try {
    const segment = newestSegment(await (await fetch(playlist, { signal })).text());
    if (!segment) return { bytes: 0, took: 0 };
    const began = performance.now();
    const answer = await fetch(new URL(segment, new URL(playlist, location.href)), { signal, cache: 'no-store' });
    const bytes = answer.ok ? (await answer.arrayBuffer()).byteLength : 0;
    return { bytes, took: (performance.now() - began) / 1000 };
  } catch {
    // Too slow, or the edge is away: in vain.
    return { bytes: 0, took: LIMIT_S };
  }
}
