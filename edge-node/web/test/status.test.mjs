// The state of the page follows from what the edge tells and what the player has.
import assert from 'node:assert/strict';
import test from 'node:test';
import { pageState, pause } from '../src/status.js';
import { TEXTS } from '../src/ui.js';

const nothing = { supported: true, over: false, picture: false, moving: false, buffered: false, silent: 0, part: 0.2, before: 'connecting' };
const playing = { ...nothing, picture: true, moving: true, buffered: true, before: 'playing' };
const dry = { ...playing, moving: false, buffered: false };
const state = (what, phase) => pageState({ ...what, phase });

test('page_before_the_first_picture_says_what_the_edge_knows', () => {
  for (const [phase, expected] of [[null, 'connecting'], ['waiting', 'waiting'], ['starting', 'starting'], ['live', 'starting'],
    ['away', 'away'], ['ended', 'ended'], ['missing', 'missing'], ['unreachable', 'interrupted']]) {
    assert.equal(state(nothing, phase), expected, phase);
  }
  assert.equal(pageState({ ...nothing, supported: false, phase: 'live' }), 'failed');
});

test('page_of_a_stream_whose_publisher_is_away_says_so_until_pictures_move_again', () => {
  assert.equal(state({ ...playing, silent: 1.5 }, 'away'), 'away');
  assert.equal(state({ ...playing, silent: 0.1 }, 'away'), 'playing', 'new media is newer than the answer');
  assert.equal(state({ ...dry, before: 'away' }, 'live'), 'away', 'back, and nothing to show yet');
  assert.equal(state({ ...playing, before: 'away' }, 'live'), 'playing');
});

test('page_without_pictures_of_a_connected_publisher_says_so_after_a_while', () => {
  assert.equal(state({ ...dry, silent: 1 }, 'live'), 'playing');
  assert.equal(state({ ...dry, silent: 5 }, 'live'), 'hung');
  assert.equal(state({ ...dry, silent: 5 }, 'unreachable'), 'interrupted');
});

test('page_that_gets_media_without_a_keyframe_says_so_after_a_while', () => {
  assert.equal(state({ ...nothing, keyless: 2 }, 'live'), 'starting');
  assert.equal(state({ ...nothing, keyless: 5 }, 'live'), 'keyless');
  assert.equal(state({ ...nothing, keyless: 5 }, 'away'), 'away', 'the publisher has left meanwhile');
  assert.equal(state({ ...playing, keyless: 0 }, 'live'), 'playing');
});

test('page_of_an_ended_stream_plays_what_is_buffered_and_then_promises_nothing', () => {
  assert.equal(state(playing, 'ended'), 'playing');
  assert.equal(state(dry, 'ended'), 'ended');
  assert.equal(pageState({ ...nothing, over: true, phase: null }), 'ended');
  for (const text of TEXTS.ended) assert.doesNotMatch(text, /by itself|comes back/i);
});

test('heartbeats_follow_one_another_while_the_edge_holds_them_and_are_rare_for_a_stream_that_is_over', () => {
  assert.equal(pause({ phase: 'live', state: 'a' }), 250);
  assert.equal(pause({ phase: 'live', state: 'a', interval_s: 7 }, false), 7000, 'an edge without room is left alone');
  assert.equal(pause({ phase: 'live' }), 2000);
  assert.equal(pause({ phase: 'unreachable', state: 'a' }), 2000);
  assert.equal(pause({ phase: 'ended', state: 'a' }), 15_000);
});
