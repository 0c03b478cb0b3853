// What a page shows of a clip of numbered pictures, read from each picture that is presented.

/// Runs in the page before its scripts and fills `window.seen`: the pictures presented and those whose number was read, the pauses in
/// which playback waited and the distances of pictures above 250 ms (both in milliseconds, from the start of playback on), the heights
/// of the pictures in turn, and the pairs of numbers of which the second is lower. A number is a grid of 8 × 3 cells in the upper half
/// of the picture: 16 bits and a check of 8, as the test kit draws them.
export function watchPictures() {
  const [WIDTH, HEIGHT, COLUMNS, ROWS, APART_MS] = [64, 36, 8, 3, 250];
  const seen = window.seen = { pictures: 0, read: 0, waits: [], heights: [], back: [], apart: [], errors: [], switches: [], steps: {}, height: 0, number: null };
  const canvas = Object.assign(document.createElement('canvas'), { width: WIDTH, height: HEIGHT });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  let [waiting, shownAt] = [null, null];

  const read = (video) => {
    context.drawImage(video, 0, 0, WIDTH, HEIGHT);
    const { data } = context.getImageData(0, 0, WIDTH, HEIGHT);
    const [across, down] = [WIDTH / COLUMNS, HEIGHT / 2 / ROWS];
    let bits = 0;
    for (let cell = 0; cell < COLUMNS * ROWS; cell += 1) {
      const [x, y] = [(cell % COLUMNS + 0.5) * across, (Math.floor(cell / COLUMNS) + 0.5) * down];
      bits = bits * 2 + (data[4 * (Math.floor(y) * WIDTH + Math.floor(x)) + 1] > 127 ? 1 : 0);
    }
    const [high, low, check] = [bits >> 16, (bits >> 8) & 255, bits & 255];
    return ((((high << 3) | (high >> 5)) & 255) ^ low ^ 0xa5) === check ? bits >> 8 : null;
  };

  addEventListener('waiting', (event) => { if (seen.pictures > 0 && !event.target.seeking) waiting = performance.now(); }, true);
  addEventListener('playing', () => {
    if (waiting !== null) seen.waits.push(Math.round(performance.now() - waiting));
    waiting = null;
  }, true);
  const shown = (video) => {
    const [now, number] = [performance.now(), read(video)];
    seen.pictures += 1;
    if (number !== null && seen.number !== null && number < seen.number) seen.back.push([seen.number, number]);
    seen.number = number ?? seen.number;
    seen.read += number === null ? 0 : 1;
    if (shownAt !== null && now - shownAt > APART_MS) seen.apart.push(Math.round(now - shownAt));
    shownAt = now;
    if (video.videoHeight !== seen.height) seen.heights.push(seen.height = video.videoHeight);
    video.requestVideoFrameCallback(() => shown(video));
  };
  addEventListener('loadstart', ({ target }) => {
    if (target.tagName !== 'VIDEO' || seen.video === target) return;
    seen.video = target;
    target.requestVideoFrameCallback(() => shown(target));
  }, true);
}
