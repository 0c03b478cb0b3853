// node watch.mjs URL [--seconds N] [--width W] [--height H] [--screenshot FILE] [--start-within S]
// Opens a watch page in Chromium. Exit 0 when, once it plays, time advances N seconds with no stall and the pictures are
// neither black nor still; 1 with the reasons otherwise; 2 when called wrongly. The last line is a JSON report.
import { launch } from './chromium.mjs';

const STALL_SHARE = 0.9; // Of the wall time, media must have advanced at least this much.
const MIN_SHOWN = 280; // Pixels: a video nobody can see does not play.
const MOST_RATE_CHANGES = 4; // Of playback: catching up begins and ends; a rate that flips is heard.
const BLACK_BELOW = 12; // Mean of 0–255 over the picture.

function options(argv) {
  const o = { seconds: 10, width: 1280, height: 800, screenshot: null, 'start-within': 15 };
  const [url, ...rest] = argv;
  for (let i = 0; i < rest.length; i += 2) {
    const name = rest[i]?.replace(/^--/, '');
    if (!(name in o) || rest[i + 1] === undefined) return null;
    o[name] = name === 'screenshot' ? rest[i + 1] : Number(rest[i + 1]);
  }
  return url ? { url, ...o } : null;
}

/// Runs in the page: what the video shows and how it went so far.
function look() {
  const v = document.querySelector('video');
  const c = (window.probeCanvas ??= Object.assign(document.createElement('canvas'), { width: 64, height: 36 }));
  const g = c.getContext('2d', { willReadFrequently: true });
  let mean = 0;
  let hash = 0;
  if (v.videoWidth > 0) {
    g.drawImage(v, 0, 0, c.width, c.height);
    const d = g.getImageData(0, 0, c.width, c.height).data;
    for (let i = 0; i < d.length; i += 4) {
      mean += d[i] + d[i + 1] + d[i + 2];
      hash = (hash * 31 + d[i] * 7 + d[i + 1] * 3 + d[i + 2]) | 0;
    }
    mean /= (d.length / 4) * 3;
  }
  const q = v.getVideoPlaybackQuality();
  return {
    time: v.currentTime, shown: Math.round(v.getBoundingClientRect().width), paused: v.paused, width: v.videoWidth, mean, hash, frames: q.totalVideoFrames,
    waiting: window.waits ?? 0, rates: window.rates ?? 0, state: document.body.dataset.state ?? '', error: v.error?.message ?? null,
  };
}

async function watch(page, o) {
  await page.addInitScript(() => {
    window.waits = 0;
    let playing = false;
    // Media events do not bubble: caught on their way down.
    addEventListener('playing', () => { playing = true; }, true);
    addEventListener('waiting', (event) => { if (playing && !event.target.seeking) window.waits += 1; }, true);
    window.rates = 0;
    addEventListener('ratechange', () => { window.rates += 1; }, true);
  });
  const opened = Date.now();
  await page.goto(o.url);
  await page.waitForFunction(() => {
    const v = document.querySelector('video');
    return v && !v.paused && v.currentTime > 0 && v.readyState >= 3;
  }, null, { timeout: o['start-within'] * 1000, polling: 50 });
  const startedAfter = (Date.now() - opened) / 1000;
  // The first buffering is the start; what comes later is a stall.
  await page.evaluate(() => { window.waits = 0; });
  const first = await page.evaluate(look);
  const began = Date.now();
  const pictures = [];
  while (Date.now() - began < o.seconds * 1000) {
    await page.waitForTimeout(500);
    pictures.push(await page.evaluate(look));
  }
  const wall = (Date.now() - began) / 1000;
  return { startedAfter, wall, first, last: pictures.at(-1), pictures };
}

function judge(r) {
  const wrong = [];
  const advanced = r.last.time - r.first.time;
  if (advanced < r.wall * STALL_SHARE) wrong.push(`time advanced ${advanced.toFixed(2)} s in ${r.wall.toFixed(2)} s`);
  if (r.last.waiting > 0) wrong.push(`${r.last.waiting} stalls`);
  if (r.last.rates > MOST_RATE_CHANGES) wrong.push(`${r.last.rates} changes of the playback rate`);
  if (r.last.error) wrong.push(`media error: ${r.last.error}`);
  if (r.last.shown < MIN_SHOWN) wrong.push(`the video is ${r.last.shown} px wide on the page`);
  if (r.last.width > 0) {
    if (r.pictures.every((p) => p.mean < BLACK_BELOW)) wrong.push('every picture is black');
    if (new Set(r.pictures.map((p) => p.hash)).size < r.pictures.length / 2) wrong.push('the picture stands still');
  } else {
    wrong.push('no video');
  }
  const latency = r.latency;
  return { ok: wrong.length === 0, wrong, startedAfter: r.startedAfter, advanced, wall: r.wall, stalls: r.last.waiting, rates: r.last.rates,
    frames: r.last.frames - r.first.frames, brightness: r.last.mean, latency };
}

const o = options(process.argv.slice(2));
if (!o) {
  console.error('usage: node watch.mjs URL [--seconds N] [--width W] [--height H] [--screenshot FILE] [--start-within S]');
  process.exit(2);
}
const browser = await launch();
let report;
try {
  const page = await browser.newPage({ viewport: { width: o.width, height: o.height } });
  const messages = [];
  page.on('console', (m) => { if (m.type() === 'error') messages.push(m.text()); });
  page.on('response', (r) => { if (r.status() >= 400) messages.push(`${r.status()} ${r.url()}`); });
  page.on('pageerror', (e) => messages.push(String(e)));
  try {
    const seen = await watch(page, o);
    seen.latency = await page.evaluate(() => document.querySelector('#latency')?.textContent ?? null);
    report = judge(seen);
  } catch (error) {
    report = { ok: false, wrong: [String(error).split('\n')[0]], at: await page.evaluate(look).catch(() => null) };
  }
  if (o.screenshot) await page.screenshot({ path: o.screenshot });
  report.console = messages.slice(0, 10);
} finally {
  await browser.close();
}
console.log(JSON.stringify(report));
process.exit(report.ok ? 0 : 1);
