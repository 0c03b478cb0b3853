// The watch page: waits until the stream is live, then plays it at low latency.
import Hls from 'hls.js';

const POLL_MS = 2000;
const ENDED_POLL_MS = 5000;
/// Seconds without progress after which the player jumps to the live edge, and after which it starts anew.
const STALL_JUMP_S = 3;
const STALL_RESTART_S = 8;
const CONTROLS_MS = 2800;
/// Seconds behind the newest part up to which playback counts as live.
const LIVE_EDGE_S = 8;

const $ = (id) => document.getElementById(id);
const [video, player, body] = [$('video'), $('player'), document.body];
const playback = location.pathname.split('/').filter(Boolean)[1] ?? '';
const source = `/live/${playback}/index.m3u8`;

let hls = null;
let session = null;
let started = false;
let progress = { time: 0, at: 0, jumped: false };

/// Headline and detail that a viewer reads in each state.
const TEXTS = {
  connecting: ['Connecting…', ''],
  waiting: ['The stream has not started yet', 'Stay here: it starts by itself.'],
  starting: ['Starting…', ''],
  interrupted: ['One moment…', 'The connection is being restored.'],
  ended: ['The stream has ended', 'If it comes back, it starts by itself.'],
  missing: ['There is no such stream', 'Check the link you were given.'],
  failed: ['This browser cannot play the stream', 'Try a current Chrome, Firefox, Edge or Safari.'],
};

function show(state) {
  if (body.dataset.state === state) return;
  body.dataset.state = state;
  const [headline, detail] = TEXTS[state] ?? ['', ''];
  if (state !== 'playing') {
    $('headline').textContent = headline;
    $('detail').textContent = detail;
    $('on-air').hidden = true;
  }
}

// --- Heartbeats: counting this viewer, and learning the phase of the stream --------------------------------------

async function heartbeat() {
  const answer = await fetch(`/live/${playback}/beacon`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: session && started ? JSON.stringify({ session }) : '',
    signal: AbortSignal.timeout(8000),
  });
  if (answer.status === 404) return { phase: 'missing' };
  if (!answer.ok) throw new Error(`beacon ${answer.status}`);
  const reply = await answer.json();
  const first = session === null;
  session = reply.session;
  viewers(reply.viewers);
  return { ...reply, first };
}

function viewers(count) {
  $('viewers').hidden = !started || count < 1;
  $('viewer-count').textContent = new Intl.NumberFormat('en', { notation: count > 9999 ? 'compact' : 'standard' }).format(count);
}

async function follow() {
  let wait = POLL_MS;
  try {
    const reply = await heartbeat();
    wait = started ? Math.min(reply.interval_s ?? 10, reply.viewers ? 10 : 3) * 1000 : POLL_MS;
    if (!started) {
      if (reply.phase === 'live') start();
      else if (reply.phase === 'missing') { show('missing'); wait = ENDED_POLL_MS; }
      else if (reply.phase === 'ended') { show('ended'); wait = ENDED_POLL_MS; }
      else if (body.dataset.state !== 'ended') show('waiting');
    }
  } catch {
    if (!started && body.dataset.state !== 'ended') show('interrupted');
  }
  setTimeout(follow, wait);
}

addEventListener('pagehide', () => {
  if (session && started) navigator.sendBeacon(`/live/${playback}/beacon`, JSON.stringify({ session, leaving: true }));
});

// --- Playing ------------------------------------------------------------------------------------------------------

function start() {
  started = true;
  show('starting');
  progress = { time: -1, at: performance.now(), jumped: false };
  if (Hls.isSupported()) startHls();
  else if (video.canPlayType('application/vnd.apple.mpegurl')) {
    video.src = source;
    play();
  } else {
    show('failed');
  }
}

function startHls() {
  hls = new Hls({
    lowLatencyMode: true,
    backBufferLength: 30,
    maxLiveSyncPlaybackRate: 1.08,
    manifestLoadPolicy: { default: { maxTimeToFirstByteMs: 12000, maxLoadTimeMs: 15000, timeoutRetry: null, errorRetry: null } },
  });
  let recovered = 0;
  hls.on(Hls.Events.ERROR, (_, error) => {
    if (!error.fatal) return;
    // The player recovers from a failed append in place; any other fatal error starts it anew.
    if (error.type === Hls.ErrorTypes.MEDIA_ERROR && recovered++ < 2) hls.recoverMediaError();
    else restart();
  });
  hls.on(Hls.Events.MANIFEST_PARSED, play);
  hls.loadSource(source);
  hls.attachMedia(video);
}

function stop() {
  hls?.destroy();
  hls = null;
  video.removeAttribute('src');
  video.load();
  started = false;
  $('viewers').hidden = true;
  $('big-play').hidden = true;
}

let restarts = 0;
/// Stops the player; the next heartbeat that finds the stream live starts it again.
function restart() {
  stop();
  show('interrupted');
  restarts += 1;
}

async function play() {
  try {
    await video.play();
  } catch (error) {
    if (error.name !== 'NotAllowedError') return;
    // Browsers refuse sound before a gesture of the viewer, and play without sound.
    video.muted = true;
    try {
      await video.play();
      $('unmute').hidden = false;
    } catch {
      $('big-play').hidden = false;
      show('playing');
    }
  }
}

function finished() {
  stop();
  show('ended');
}

video.addEventListener('playing', () => {
  show('playing');
  $('big-play').hidden = true;
  body.dataset.stalled = 'no';
});
video.addEventListener('waiting', () => { body.dataset.stalled = 'yes'; });
video.addEventListener('ended', finished);
video.addEventListener('error', () => { if (started && !hls && video.error) restart(); });

/// Recovers from stalls that hls.js does not recover from by itself.
function watchdog() {
  const now = performance.now();
  if (!started || video.paused || video.currentTime !== progress.time) {
    if (video.currentTime !== progress.time && started) body.dataset.stalled = 'no';
    progress = { time: video.currentTime, at: now, jumped: false };
    return;
  }
  const still = (now - progress.at) / 1000;
  const edge = hls?.liveSyncPosition;
  if (still > STALL_RESTART_S) restart();
  else if (still > STALL_JUMP_S && !progress.jumped && edge > video.currentTime) {
    progress.jumped = true;
    video.currentTime = edge;
  }
}

// --- Controls -----------------------------------------------------------------------------------------------------

function latency() {
  if (hls && Number.isFinite(hls.latency) && hls.latency > 0) return hls.latency;
  const end = video.seekable.length ? video.seekable.end(video.seekable.length - 1) : NaN;
  return end - video.currentTime;
}

function refresh() {
  const behind = latency();
  const playing = body.dataset.state === 'playing' && Number.isFinite(behind);
  $('latency').textContent = playing ? `${behind.toFixed(1)} s` : '';
  $('live').dataset.edge = String(playing && behind < LIVE_EDGE_S && !video.paused);
  $('on-air').hidden = $('live').dataset.edge !== 'true';
  watchdog();
}

function goLive() {
  const edge = hls?.liveSyncPosition ?? (video.seekable.length ? video.seekable.end(video.seekable.length - 1) : null);
  if (Number.isFinite(edge)) video.currentTime = edge;
  play();
}

function toggle() {
  if (video.paused) goLive();
  else video.pause();
}

function sound() {
  const on = !video.muted && video.volume > 0;
  body.dataset.sound = on ? 'on' : 'off';
  $('mute').setAttribute('aria-pressed', String(!on));
  $('volume').value = video.muted ? 0 : video.volume;
  if (on) $('unmute').hidden = true;
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (player.requestFullscreen) player.requestFullscreen();
  else video.webkitEnterFullscreen?.();
}

let quiet = 0;
function stir() {
  player.classList.remove('quiet');
  clearTimeout(quiet);
  quiet = setTimeout(() => player.classList.toggle('quiet', !video.paused), CONTROLS_MS);
}

$('play').onclick = toggle;
$('big-play').onclick = toggle;
$('live').onclick = goLive;
$('full').onclick = fullScreen;
$('mute').onclick = () => { video.muted = !video.muted; if (!video.muted && video.volume === 0) video.volume = 1; };
$('unmute').onclick = () => { video.muted = false; $('unmute').hidden = true; };
$('volume').oninput = (event) => { video.volume = Number(event.target.value); video.muted = video.volume === 0; };
$('again').onclick = start;
video.onclick = () => (matchMedia('(hover: none)').matches ? stir() : toggle());
video.addEventListener('volumechange', sound);
for (const event of ['play', 'pause']) {
  video.addEventListener(event, () => {
    body.dataset.play = video.paused ? 'off' : 'on';
    $('play').setAttribute('aria-label', video.paused ? 'Play' : 'Pause');
    stir();
  });
}
for (const event of ['pointermove', 'pointerdown', 'focusin']) player.addEventListener(event, stir);
document.addEventListener('keydown', (event) => {
  if (event.target.closest('button, input') || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = { ' ': toggle, k: toggle, m: $('mute').onclick, f: fullScreen, l: goLive }[event.key];
  if (act && body.dataset.state === 'playing') { event.preventDefault(); act(); stir(); }
});

Object.assign(body.dataset, { play: 'off', sound: 'on', stalled: 'no' });
setInterval(refresh, 500);
follow();
