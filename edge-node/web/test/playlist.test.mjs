// Joining, silence and tracks, read from playlists as hls.js hands them over.
import assert from 'node:assert/strict';
import test from 'node:test';
import { afterGap, endsInGap, joinAt, newest, unknownReports, misplaced } from '../src/playlist.js';

/// Segments of two seconds from media sequence number 10 on, `kinds` one letter each: `m`edia or `g`ap; the last two have ten
/// parts each, the first of them independent.
function playlist(kinds, parts = 10) {
  const fragments = [...kinds].map((kind, i) => ({ sn: 10 + i, start: 2 * i, end: 2 * i + 2, gap: kind === 'g' }));
  const partList = fragments.slice(-2).flatMap((fragment, i) =>
    Array.from({ length: i === 1 ? parts : 10 }, (_, index) => {
      const start = fragment.start + index * 0.2;
      return { fragment, index, start, end: start + 0.2, independent: index === 0, gap: fragment.gap };
    }));
  return { fragments, partList, targetduration: 4, url: 'http://edge/live/abc/video/index.m3u8' };
}

test('joining_takes_the_newest_keyframe_that_is_far_enough_behind_the_edge', () => {
  const details = playlist('mmm');
  assert.equal(joinAt(details, 6.0, 1.2), 4);
  assert.equal(joinAt(details, 4.8, 1.2), 4, 'nearly at the target is good enough');
  assert.equal(joinAt(details, 4.2, 1.2), 2, 'a keyframe of just now would stall');
  assert.equal(joinAt({ ...details, partList: null }, 6, 1.2), null);
});

test('joining_behind_gaps_takes_the_first_keyframe_and_a_playlist_of_an_absence_its_last_picture', () => {
  assert.equal(joinAt(playlist('mmggm', 2), 8.4, 1.2), 8, 'media before the gap would play for a moment only');
  assert.equal(joinAt(playlist('mmg', 0), 6, 1.2), 2);
});

test('newest_media_grows_with_parts_and_neither_with_gaps_nor_with_the_end_of_a_listed_segment', () => {
  const before = newest(playlist('mmm', 5));
  assert.ok(newest(playlist('mmm', 6)) > before);
  const away = playlist('mmmg', 0);
  assert.equal(newest(away), newest(playlist('mmm')));
  assert.equal(newest({ fragments: [], partList: null }), -1);
});

test('media_behind_gaps_is_found_and_a_playlist_that_ends_in_gaps_has_none', () => {
  assert.equal(afterGap(playlist('mmggm'), 4.1), 8);
  assert.equal(afterGap(playlist('mmgg'), 4.1), null);
  assert.equal(afterGap(playlist('mmmm'), 4.1), null, 'without a gap there is nothing to skip');
  assert.equal(afterGap(playlist('mggmm'), 6.5), null, 'a gap that has been passed counts no more');
  assert.ok(endsInGap(playlist('mmgg')));
  assert.ok(!endsInGap(playlist('mmgm')));
});

test('reported_renditions_that_the_player_does_not_know_are_told', () => {
  const details = { ...playlist('mm'), renditionReports: [{ URI: '../audio/index.m3u8' }] };
  assert.deepEqual(unknownReports(details, ['http://edge/live/abc/video/index.m3u8']), ['/live/abc/audio/index.m3u8']);
  assert.deepEqual(unknownReports(details, ['http://edge/live/abc/audio/index.m3u8?x=1']), []);
  assert.deepEqual(unknownReports(playlist('mm'), []), []);
});

test('a playlist is placed by the newest segment that the variant before has loaded', () => {
  const playlist = (from, starts, pts = {}) => ({
    fragments: starts.map((start, index) => ({ sn: from + index, cc: 0, start, startPTS: pts[from + index] })),
  });
  const loaded = playlist(7, [10, 12, 14], { 7: 10.001, 8: 11.995 });
  assert.ok(Math.abs(misplaced(playlist(8, [12, 14, 16]), loaded) + 0.005) < 1e-9);
  assert.equal(misplaced(playlist(9, [14, 16]), loaded), 0, 'no segment in common');
  assert.equal(misplaced(playlist(8, [12, 14], { 9: 14.001 }), loaded), 0, 'its own segments are known');
  assert.equal(misplaced(playlist(8, [12]), undefined), 0);
});
