// node states.mjs URL [--title TEXT] [--within S] STATE…
// Opens a watch page and waits for one state after another. A line `seen STATE …` is printed for each, so that the caller can
// make the next one come about. In every state axe must find nothing and the words must be true to it. Exit 0 when all came.
// A STATE may carry a condition: `playing:sound` (a stream without pictures), `playing:heard` (sound beside pictures),
// `playing:silent` (pictures alone), `playing:live` (the LIVE badge, close to the newest part).
import { readFileSync } from 'node:fs';
import { launch } from './chromium.mjs';

const axe = readFileSync(new URL('node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');
const LIVE_WITHIN_S = 3;

const [url, ...rest] = process.argv.slice(2);
const options = { title: null, within: 30 };
while (rest[0]?.startsWith('--')) {
  const [name, value] = rest.splice(0, 2);
  options[name.slice(2)] = name === '--within' ? Number(value) : value;
}

/// Runs in the page.
function look() {
  const video = document.querySelector('video');
  const text = (id) => document.getElementById(id).textContent;
  return {
    state: document.body.dataset.state, kind: document.body.dataset.kind, headline: text('headline'), detail: text('detail'),
    title: document.querySelector('h1').textContent, badge: !document.getElementById('on-air').hidden, latency: parseFloat(text('latency')),
    time: video.currentTime, still: !document.getElementById('still').hidden, width: video.videoWidth,
    heard: (video.webkitAudioDecodedByteCount ?? 0) > 0,
    bars: [...document.querySelectorAll('.meter i')].map((bar) => parseFloat(bar.style.transform.slice(7)) || 0),
  };
}

const holds = {
  sound: (seen) => seen.kind === 'sound' && seen.width === 0 && Math.max(...seen.bars) > 0.3,
  silent: (seen) => seen.width > 0 && !seen.heard,
  heard: (seen) => seen.kind === 'picture' && seen.width > 0 && seen.heard,
  live: (seen) => seen.badge && seen.latency < LIVE_WITHIN_S,
};

async function violations(page) {
  await page.evaluate(axe);
  // A cover that fades has a contrast of its own for a moment.
  await page.waitForTimeout(300);
  const found = await page.evaluate(() => axe.run({ resultTypes: ['violations'] }));
  return found.violations.flatMap((one) => one.nodes.map((node) => `axe ${one.id}: ${node.target} ${node.failureSummary}`));
}

function untrue(seen) {
  const wrong = [];
  if (seen.badge && seen.state !== 'playing') wrong.push(`the LIVE badge shows while ${seen.state}`);
  if (seen.state === 'ended' && /by itself/.test(seen.detail)) wrong.push(`an ended stream promises: ${seen.detail}`);
  if (seen.state === 'waiting' && !/not started/.test(seen.headline)) wrong.push(`a stream that never started says: ${seen.headline}`);
  if (seen.state === 'away' && !/reconnecting/.test(seen.headline)) wrong.push(`an absence reads: ${seen.headline}`);
  if (seen.state === 'away' && seen.time > 0 && seen.width === 0 && !seen.still && seen.kind !== 'sound') wrong.push('the last picture is gone');
  if (options.title && seen.title !== options.title) wrong.push(`the heading is: ${seen.title}`);
  return wrong;
}

async function until(page, wanted) {
  const [state, condition] = wanted.split(':');
  const end = Date.now() + options.within * 1000;
  let seen = await page.evaluate(look);
  while (seen.state !== state || (condition && !holds[condition](seen))) {
    if (Date.now() > end) throw new Error(`no ${wanted} within ${options.within} s: ${JSON.stringify(seen)}`);
    await page.waitForTimeout(50);
    seen = await page.evaluate(look);
  }
  return seen;
}

const browser = await launch();
const wrong = [];
let page;
try {
  for (const [index, wanted] of rest.entries()) {
    if (index === 0) {
      page = await browser.newPage({ viewport: { width: 390, height: 844 } });
      page.on('pageerror', (error) => wrong.push(String(error)));
      await page.goto(url);
    }
    const seen = await until(page, wanted);
    wrong.push(...untrue(seen));
    console.log(`seen ${wanted} at ${Date.now()} ${JSON.stringify({ headline: seen.headline, latency: seen.latency, time: seen.time })}`);
    wrong.push(...await violations(page));
  }
} catch (error) {
  wrong.push(String(error));
} finally {
  await browser.close();
}
console.log(JSON.stringify({ ok: wrong.length === 0, wrong }));
process.exit(wrong.length === 0 ? 0 : 1);
