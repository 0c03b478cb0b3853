// What the viewer sees and touches: the words of each state, the controls and their keys.

const CONTROLS_MS = 2800;

/// Headline and detail that a viewer reads in each state.
export const TEXTS = {
  connecting: ['Connecting…', ''],
  waiting: ['The stream has not started yet', 'Stay here: it starts by itself.'],
  starting: ['Starting…', ''],
  away: ['The broadcaster is reconnecting…', 'Stay here: it goes on by itself.'],
  keyless: ['Waiting for a picture to begin with', 'The broadcaster has sent no keyframe for a while. It starts by itself with the next one.'],
  hung: ['No picture comes from the broadcaster', 'Stay here: it goes on by itself.'],
  interrupted: ['No connection to the server', 'Trying again…'],
  ended: ['The stream has ended', 'If it goes on the air again, it plays here.'],
  missing: ['There is no such stream', 'Check the link you were given.'],
  failed: ['This browser cannot play the stream', 'Try a current Chrome, Firefox, Edge or Safari.'],
};

const $ = (id) => document.getElementById(id);
const compact = (count) => new Intl.NumberFormat('en', { notation: count > 9999 ? 'compact' : 'standard' }).format(count);

export class Ui {
  #video = $('video');
  #player;
  #quiet = 0;

  constructor(player) {
    this.#player = player;
    Object.assign(document.body.dataset, { play: 'off', sound: 'on', stalled: 'no' });
    this.#buttons();
    this.#media();
    for (const event of ['pointermove', 'pointerdown', 'focusin']) $('player').addEventListener(event, () => this.#stir());
    document.addEventListener('keydown', (event) => this.#key(event));
  }

  get state() { return document.body.dataset.state; }

  /// Shows a state. `picture` is true if there is a picture to leave under the words.
  show(state, picture) {
    const { dataset } = document.body;
    dataset.picture = picture ? 'yes' : 'no';
    if (dataset.state === state) return;
    dataset.state = state;
    // An empty status is announced by no screen reader, and the next text is.
    const [headline, detail] = TEXTS[state] ?? ['', ''];
    $('headline').textContent = headline;
    $('detail').textContent = detail;
  }

  viewers(count) {
    $('viewers').hidden = !(count > 0);
    if (count > 0) $('viewer-count').textContent = compact(count);
  }

  /// Shows how far behind playback is, in seconds, and whether it counts as live.
  live(latency, isLive) {
    const known = this.state === 'playing' && Number.isFinite(latency);
    $('latency').textContent = known ? `${latency.toFixed(1)} s` : '';
    $('live').dataset.edge = String(isLive);
    $('live-hint').textContent = isLive ? ' behind' : ' behind: go to live';
    $('on-air').hidden = !isLive;
  }

  stalled(yes) { document.body.dataset.stalled = yes ? 'yes' : 'no'; }

  /// Asks for a gesture: for sound, or to play at all.
  ask(gesture) {
    if (gesture === 'muted') $('unmute').hidden = false;
    if (gesture === 'refused') $('big-play').hidden = false;
  }

  get isAsking() { return !$('big-play').hidden; }

  toggle() {
    if (this.#video.paused) this.#player.goLive();
    else this.#video.pause();
  }

  #mute() {
    const video = this.#video;
    video.muted = !video.muted;
    if (!video.muted && video.volume === 0) video.volume = 1;
  }

  #fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if ($('player').requestFullscreen) $('player').requestFullscreen();
    else this.#video.webkitEnterFullscreen?.();
  }

  #buttons() {
    const video = this.#video;
    const touch = matchMedia('(hover: none)');
    $('play').onclick = $('big-play').onclick = () => this.toggle();
    $('live').onclick = () => this.#player.goLive();
    $('full').onclick = () => this.#fullScreen();
    $('mute').onclick = () => this.#mute();
    $('unmute').onclick = () => { video.muted = false; };
    $('volume').oninput = (event) => { video.volume = Number(event.target.value); video.muted = video.volume === 0; };
    for (const surface of [video, $('sound')]) surface.onclick = () => (touch.matches ? this.#stir() : this.toggle());
  }

  #media() {
    const video = this.#video;
    video.addEventListener('volumechange', () => {
      const on = !video.muted && video.volume > 0;
      document.body.dataset.sound = on ? 'on' : 'off';
      $('mute').setAttribute('aria-label', on ? 'Mute' : 'Unmute');
      $('volume').value = video.muted ? 0 : video.volume;
      if (on) $('unmute').hidden = true;
    });
    video.addEventListener('playing', () => { $('big-play').hidden = true; });
    for (const event of ['play', 'pause']) {
      video.addEventListener(event, () => {
        document.body.dataset.play = video.paused ? 'off' : 'on';
        $('play').setAttribute('aria-label', video.paused ? 'Play' : 'Pause');
        this.#stir();
      });
    }
  }

  #stir() {
    const { classList } = $('player');
    classList.remove('quiet');
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => classList.toggle('quiet', !this.#video.paused), CONTROLS_MS);
  }

  #key(event) {
    if (event.target.closest('button, input, select') || event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      ' ': () => this.toggle(), k: () => this.toggle(), m: () => this.#mute(), f: () => this.#fullScreen(),
      l: () => this.#player.goLive(),
    };
    if (!keys[event.key] || this.state !== 'playing') return;
    event.preventDefault();
    keys[event.key]();
    this.#stir();
  }
}
