// node ladder.mjs URL [--within S] PHASE…
// Opens a watch page in Chromium and lets it play while the network has the rate of one PHASE after another. A PHASE is KBPS:WHAT or
// KBPS:WHAT:steep: KBPS is the rate in kilobits per second (0: no limit), and WHAT is the height of the picture that the page must show
// within S seconds, or `sound` for audio alone; without a limit any greater height than before will do. A line `seen PHASE …` is printed
// for each. Exit 0 when all came without a stall. In a steep one, which a buffer of a second cannot outlast, stalls are told only.
import { launch } from './chromium.mjs';

const LATENCY_MS = 20;
const SETTLE_MS = 4000; // A rendition that is kept for so long is the choice of the player, not a moment of its search.
const MIN_SHARE = 0.9; // Of the wall time, media must have advanced at least this much in a phase.

const [url, ...phases] = process.argv.slice(2);
let within = 30;
if (phases[0] === '--within') [, within] = phases.splice(0, 2).map(Number);

/// Runs in the page.
function look() {
  const v = document.querySelector('video');
  return { height: v.videoHeight, time: v.currentTime, waits: window.waits ?? 0, error: v.error?.message ?? null, kind: document.body.dataset.kind,
    pictures: v.webkitVideoDecodedByteCount ?? 0, sound: v.webkitAudioDecodedByteCount ?? 0, state: document.body.dataset.state };
}

async function throttle(session, kbps) {
  const throughput = kbps === 0 ? -1 : (kbps * 1000) / 8;
  const conditions = { offline: false, latency: kbps === 0 ? 0 : LATENCY_MS, downloadThroughput: throughput, uploadThroughput: throughput };
  await session.send('Network.emulateNetworkConditions', conditions);
}

/// Waits until the page shows WHAT, and goes on to for a moment.
async function until(page, what, began, { height, unlimited }) {
  let since = null;
  let before = await page.evaluate(look);
  for (;;) {
    await page.waitForTimeout(200);
    const now = await page.evaluate(look);
    const holds = what === 'sound' ? now.kind === 'sound' && now.time > before.time : now.kind !== 'sound' && (now.height === Number(what) || (unlimited && height > 0 && now.height > height));
    since = holds ? since ?? Date.now() : null;
    if (since !== null && Date.now() - since >= SETTLE_MS) return { now, after: (since - began) / 1000 };
    if (Date.now() - began > within * 1000) throw new Error(`no ${what} within ${within} s: ${JSON.stringify(now)}`);
    before = now;
  }
}

const browser = await launch();
const wrong = [];
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  page.on('pageerror', (error) => wrong.push(String(error)));
  await page.addInitScript(() => {
    window.waits = 0;
    let playing = false;
    addEventListener('playing', () => { playing = true; }, true);
    addEventListener('waiting', (event) => { if (playing && !event.target.seeking) window.waits += 1; }, true);
  });
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  await page.goto(url);
  await page.waitForFunction(() => { const v = document.querySelector('video'); return v && !v.paused && v.currentTime > 0 && v.readyState >= 3; },
    null, { timeout: within * 1000, polling: 50 });
  await page.evaluate(() => { window.waits = 0; });
  for (const phase of phases) {
    const [kbps, what, steep] = phase.split(':');
    const began = Date.now();
    const first = await page.evaluate(look);
    await throttle(session, Number(kbps));
    const { now, after } = await until(page, what, began, { height: first.height, unlimited: Number(kbps) === 0 });
    const wall = (Date.now() - began) / 1000;
    const stalls = now.waits - first.waits;
    console.log(`seen ${phase} after ${after.toFixed(1)} s, ${stalls} stalls, ${(now.time - first.time).toFixed(1)} s of media in ${wall.toFixed(1)} s`);
    if (!steep && stalls > 0) wrong.push(`${stalls} stalls in ${phase}`);
    if (!steep && now.time - first.time < wall * MIN_SHARE) wrong.push(`time advanced ${(now.time - first.time).toFixed(1)} s in ${wall.toFixed(1)} s of ${phase}`);
    if (now.error) wrong.push(now.error);
  }
} catch (error) {
  wrong.push(String(error).split('\n')[0]);
} finally {
  await browser.close();
}
console.log(JSON.stringify({ ok: wrong.length === 0, wrong }));
process.exit(wrong.length === 0 ? 0 : 1);
