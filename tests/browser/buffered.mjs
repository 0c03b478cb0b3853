// node buffered.mjs JOBS.json HELD.json
// Appends each job's files to SourceBuffers of one Chromium, as a player would, and writes what they hold, what the video
// element shows and how far it plays at four times the speed.
import { readFile, writeFile } from 'node:fs/promises';
import { launch } from './chromium.mjs';

const SPEED = 4;
const ORIGIN = 'http://media.invalid';

/// Runs in the page.
async function hold({ job, speed }) {
  const video = document.createElement('video');
  video.muted = true;
  document.body.append(video);
  const media = new MediaSource();
  video.src = URL.createObjectURL(media);
  await new Promise((done) => media.addEventListener('sourceopen', done, { once: true }));
  const ranges = (buffered) => Array.from({ length: buffered.length }, (_, i) => [buffered.start(i), buffered.end(i)]);
  const result = { name: job.name, video: [], audio: [], width: 0, height: 0, frames: 0, reached: 0, error: null };
  const buffers = {};
  try {
    for (const kind of ['video', 'audio']) {
      if (job[kind].files.length > 0) buffers[kind] = media.addSourceBuffer(job[kind].mime);
    }
    for (const [kind, buffer] of Object.entries(buffers)) {
      for (const file of job[kind].files) {
        const bytes = await (await fetch(file)).arrayBuffer();
        const done = new Promise((ok, bad) => {
          buffer.addEventListener('updateend', ok, { once: true });
          buffer.addEventListener('error', () => bad(new Error(`append of ${kind}`)), { once: true });
        });
        buffer.appendBuffer(bytes);
        await done;
      }
      result[kind] = ranges(buffer.buffered);
    }
    media.endOfStream();
    video.currentTime = video.buffered.start(0);
    video.playbackRate = speed;
    await video.play();
    let last = -1;
    // Two seconds without progress are the end, or a hole.
    for (let still = 0; still < 20 && !video.ended; still = video.currentTime > last ? 0 : still + 1) {
      last = video.currentTime;
      await new Promise((done) => setTimeout(done, 100));
    }
  } catch (error) {
    result.error = `${error}${video.error ? `: ${video.error.message}` : ''}`;
  }
  result.error ??= video.error?.message ?? null;
  Object.assign(result, { width: video.videoWidth, height: video.videoHeight, reached: video.currentTime,
    frames: video.getVideoPlaybackQuality().totalVideoFrames });
  video.remove();
  return result;
}

const [input, output] = process.argv.slice(2);
const jobs = JSON.parse(await readFile(input, 'utf8'));
const browser = await launch();
try {
  const page = await browser.newPage();
  await page.route(`${ORIGIN}/**`, async (route) => {
    const path = decodeURIComponent(new URL(route.request().url()).pathname);
    if (path === '/') await route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>media</title>' });
    else await route.fulfill({ body: await readFile(path), contentType: 'video/mp4' });
  });
  await page.goto(`${ORIGIN}/`);
  const held = [];
  for (const job of jobs) held.push(await page.evaluate(hold, { job, speed: SPEED }));
  await writeFile(output, JSON.stringify(held));
} finally {
  await browser.close();
}
