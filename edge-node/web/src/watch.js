// The watch page: it asks for the stream at once, shows how it stands, and plays it at low latency.
import { Player } from './player.js';
import { Quality } from './quality.js';
import { LevelMeter } from './sound.js';
import { Beacon, pageState } from './status.js';
import { Ui } from './ui.js';

const OBSERVE_MS = 250;
/// Milliseconds between two changes of the figures on the page.
const FIGURES_MS = 1000;
/// Seconds above the target up to which playback counts as live.
const LIVE_SLACK_S = 3;

const $ = (id) => document.getElementById(id);
const video = $('video');
const playback = location.pathname.split('/').filter(Boolean)[1] ?? '';

const player = new Player(video, $('still'), `/live/${playback}/index.m3u8`, changed);
const ui = new Ui(player);
const quality = new Quality($('quality'), video, player.choice);
const meter = new LevelMeter(video, $('meter'));
const beacon = new Beacon(`/live/${playback}/beacon`, () => player.picture, told);
let figuresAt = 0;

/// Takes what the beacon has told.
function told(reply) {
  ui.viewers(player.picture ? reply.viewers : 0);
  if (reply.phase === 'missing') player.stop();
  // A stream that was over may have been opened again.
  else if (['starting', 'live', 'away'].includes(reply.phase)) player.start();
  player.offered(reply.tracks);
  refresh();
}

/// Takes a change of the player.
function changed(gesture) {
  if (gesture) ui.ask(gesture);
  refresh();
}

function refresh() {
  const { over, picture, moving, buffered, silent, part, keyless } = player;
  const supported = Player.supported;
  let state = pageState({ phase: beacon.phase, supported, over, picture, moving, buffered, silent, part, keyless, before: ui.state });
  if (ui.isAsking && ['starting', 'connecting'].includes(state)) state = 'playing';
  if (state === 'ended') player.stop();
  ui.show(state, picture);
  document.body.dataset.kind = picture && player.isSound ? 'sound' : 'picture';
  meter.run(document.body.dataset.kind === 'sound');
}

function observe() {
  player.observe();
  refresh();
  const { latency } = player;
  const isLive = ui.state === 'playing' && !video.paused && !player.isSilent && latency < player.target + LIVE_SLACK_S;
  ui.stalled(player.picture && !video.paused && !player.moving);
  if (performance.now() - figuresAt < FIGURES_MS && String(isLive) === $('live').dataset.edge) return;
  figuresAt = performance.now();
  ui.live(latency, isLive);
  quality.refresh();
}

ui.show('connecting', false);
if (Player.supported) player.start();
beacon.follow();
setInterval(observe, OBSERVE_MS);
