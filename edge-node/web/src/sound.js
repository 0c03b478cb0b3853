// The picture of a stream without one: bars that follow the level of the sound.

const BARS = 24;
/// The share of a bar's fall that each frame keeps: levels rise at once and fall slowly, as meters do.
const FALL = 0.9;

export class LevelMeter {
  #video;
  #bars = [];
  #analyser = null;
  #context = null;
  #levels = new Float32Array(BARS);
  #running = false;

  constructor(video, root) {
    this.#video = video;
    for (let i = 0; i < BARS; i++) this.#bars.push(root.appendChild(document.createElement('i')));
    // An audio context runs from a gesture on, unless the browser lets pages play sound.
    addEventListener('pointerdown', () => this.#context?.resume());
    addEventListener('keydown', () => this.#context?.resume());
  }

  /// Shows the level from now on, or no more.
  run(yes) {
    if (yes === this.#running) return;
    this.#running = yes;
    if (!yes) return;
    this.#listen();
    this.#draw();
  }

  /// Listens to a copy of the sound: what is played does not go through the analyser, and stays what it is when it fails.
  #listen() {
    const capture = this.#video.captureStream ?? this.#video.mozCaptureStream;
    if (!capture || !window.AudioContext) return;
    try {
      const stream = capture.call(this.#video);
      const connect = () => {
        if (stream.getAudioTracks().length === 0) return;
        this.#context ??= new AudioContext();
        this.#analyser = new AnalyserNode(this.#context, { fftSize: 512, smoothingTimeConstant: 0.6 });
        this.#context.createMediaStreamSource(stream).connect(this.#analyser);
      };
      connect();
      stream.addEventListener('addtrack', connect);
    } catch {
      this.#analyser = null;
    }
  }

  #draw() {
    if (!this.#running) return;
    const bins = new Uint8Array(this.#analyser?.frequencyBinCount ?? 0);
    if (this.#context?.state === 'running') this.#analyser.getByteFrequencyData(bins);
    for (let i = 0; i < BARS; i++) {
      // Bars are an even share of the octaves, as ears are.
      const [from, to] = [i, i + 1].map((n) => Math.floor(2 * (bins.length / 2) ** (n / BARS)));
      let level = 0;
      for (let bin = from; bin < Math.max(to, from + 1) && bin < bins.length; bin++) level = Math.max(level, bins[bin] / 255);
      this.#levels[i] = Math.max(level, this.#levels[i] * FALL);
      this.#bars[i].style.transform = `scaleY(${(0.06 + 0.94 * this.#levels[i]).toFixed(3)})`;
    }
    requestAnimationFrame(() => this.#draw());
  }
}
