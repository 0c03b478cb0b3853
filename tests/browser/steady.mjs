// node steady.mjs URL PLAYER… -- PHASE…
// Plays a multivariant playlist of numbered pictures in Chromium, each PLAYER in a page of its own with a network of its own, while the
// network has the rate of one PHASE after another. PLAYER is `page` (the watch page), `plain` (hls.js with its defaults but for the
// low-latency mode), `low` (hls.js in that mode with the page's choice of the variant, as docs/players.md advises) or `default` (hls.js
// as it is: told, not judged). A PHASE is KBPS:HEIGHT or KBPS:HEIGHT:LEAST_S: KBPS is the rate in kilobits per second (0: no limit),
// HEIGHT the height of the pictures that must play within WITHIN_MS and for SETTLE_MS (`+` behind it takes a greater one, too), and the
// phase lasts LEAST_S seconds at least. Exit 0 if every player followed, no picture came after one with a greater number, none but
// `default` stood still, and the page's menu works.
import http from 'node:http';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { launch } from './chromium.mjs';
import { watchPictures } from './numbered.mjs';

const WITHIN_MS = 60_000;
const SETTLE_MS = 4000;
const LATENCY_MS = 20; // Of the network, while its rate is limited.
const START_MS = 30_000;
const JOINED_MS = 5000;
const STALL_MS = 250; // A pause that viewers notice.
const PICTURE_MS = 500; // Two pictures further apart are a stall, whatever the media element says.
const MIN_SHARE = 0.93; // Of wall time: the page plays up to a twentieth slower.
const MIN_READ = 0.9; // Of the pictures: lossy ones may be illegible.
const JUDGED = ['page', 'plain', 'low'];

const [url, ...rest] = process.argv.slice(2);
const players = rest.slice(0, rest.indexOf('--'));
const phases = rest.slice(rest.indexOf('--') + 1).map((phase) => {
  const [kbps, height, leastS = '0'] = phase.split(':');
  return { phase, kbps: Number(kbps), height: parseInt(height, 10), orMore: height.endsWith('+'), leastMs: Number(leastS) * 1000 };
});

// The page's choice of the variant is a module that other pages may use, too; a page imports it beside hls.js.
const web = new URL('../../edge-node/web/src/', import.meta.url);
const scripts = {
  '/hls.js': readFileSync(createRequire(import.meta.url).resolve('hls.js/dist/hls.mjs')),
  '/choice.js': readFileSync(new URL('choice.js', web)),
  '/ladder.js': readFileSync(new URL('ladder.js', web)),
};
const html = `<!doctype html><video muted playsinline></video>
<script type="importmap">{ "imports": { "hls.js": "/hls.js" } }</script>
<script type="module">
import Hls from 'hls.js';
import { Choice } from '/choice.js';
const video = document.querySelector('video'), seen = window.seen, choice = new Choice();
const { searchParams } = new URL(location);
const settings = {
  plain: { lowLatencyMode: false },
  low: { liveSyncDuration: 3, abrController: choice.controller },
};
const player = searchParams.get('player');
const hls = new Hls(settings[player] ?? {});
if (player === 'low') choice.follow(hls);
hls.on(Hls.Events.LEVEL_SWITCHED, (_, { level }) => seen.switches.push(hls.levels[level].height));
// Told of a player that does not start.
for (const name of ['MEDIA_ATTACHED', 'MANIFEST_PARSED', 'LEVEL_LOADED', 'AUDIO_TRACK_LOADED', 'FRAG_LOADING', 'FRAG_LOADED', 'BUFFER_APPENDED']) {
  hls.on(Hls.Events[name], () => { seen.steps[name] = (seen.steps[name] ?? 0) + 1; });
}
hls.on(Hls.Events.ERROR, (_, { fatal, details, reason, error }) => {
  seen.told = \`\${details}: \${reason ?? error?.message}\`;
  if (fatal || details === Hls.ErrorDetails.BUFFER_STALLED_ERROR) seen.errors.push(details + (fatal ? ' (fatal)' : ''));
});
hls.loadSource(searchParams.get('url'));
hls.attachMedia(video);
video.play();
</script>`;
const server = http.createServer((request, response) => {
  const script = scripts[request.url];
  response.setHeader('content-type', script ? 'text/javascript' : 'text/html');
  response.end(script ?? html);
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));

const address = (player) => (player === 'page'
  ? url.replace('/live/', '/watch/').replace('/index.m3u8', '')
  : `http://127.0.0.1:${server.address().port}/?player=${player}&url=${encodeURIComponent(url)}`);

/// Runs in the page.
function look() {
  const { video, ...seen } = window.seen;
  return { ...seen, now: performance.now(), time: video?.currentTime, ready: video?.readyState };
}

async function throttle(session, kbps) {
  const throughput = kbps === 0 ? -1 : (kbps * 1000) / 8;
  const latency = kbps === 0 ? 0 : LATENCY_MS;
  await session.send('Network.emulateNetworkConditions', { offline: false, latency, downloadThroughput: throughput, uploadThroughput: throughput });
}

/// Plays until the pictures have had the wanted height for a while.
async function until(page, { height, orMore, leastMs }, began) {
  let since = null;
  for (;;) {
    await page.waitForTimeout(100);
    const now = await page.evaluate(look);
    const holds = now.height === height || (orMore && now.height > height);
    since = holds ? since ?? Date.now() : null;
    const enough = since !== null && Date.now() - since >= SETTLE_MS && Date.now() - began >= leastMs;
    if (enough) return { now, after: (since - began) / 1000 };
    if (Date.now() - began > WITHIN_MS) throw new Error(`no pictures of ${height} lines within ${WITHIN_MS / 1000} s: ${JSON.stringify(now)}`);
  }
}

/// Chooses the lowest rung in the menu of the watch page, and leaves the choice to the page again.
async function useMenu(page) {
  const wrong = [];
  const heights = await page.$$eval('#quality option', (options) => options.map((option) => option.value));
  const lowest = Math.min(...heights.slice(1).map(Number));
  const menu = () => page.$eval('#quality', (select) => select.selectedOptions[0].textContent);
  await page.selectOption('#quality', String(lowest));
  await until(page, { height: lowest, leastMs: 0 }, Date.now());
  if (await menu() !== `${lowest}p`) wrong.push(`the menu says ${await menu()} at the chosen ${lowest}p`);
  await page.selectOption('#quality', 'auto');
  const { now } = await until(page, { height: lowest + 1, orMore: true, leastMs: 0 }, Date.now());
  if (await menu() !== `Auto (${now.height}p)`) wrong.push(`the menu says ${await menu()} at ${now.height}p of its own choice`);
  return wrong;
}

async function run(browser, player) {
  const wrong = [];
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 800 } })).newPage();
  page.on('pageerror', (error) => wrong.push(String(error)));
  await page.addInitScript(watchPictures);
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  await throttle(session, phases[0].kbps);
  await page.goto(address(player));
  await page.waitForFunction(() => window.seen.pictures > 0, null, { timeout: START_MS, polling: 50 }).catch(async () => {
    throw new Error(`no picture within ${START_MS / 1000} s: ${JSON.stringify(await page.evaluate(look))}`);
  });
  // A start may hop from the newest keyframe to the target, and wait for a buffer.
  await page.waitForTimeout(JOINED_MS);
  await page.evaluate(() => Object.assign(window.seen, { waits: [], apart: [], errors: [] }));
  for (const phase of phases) {
    const began = Date.now();
    await throttle(session, phase.kbps);
    const first = await page.evaluate(look);
    const { now, after } = await until(page, phase, began);
    const share = (now.time - first.time) / ((now.now - first.now) / 1000);
    console.log(`${player}: seen ${phase.phase} after ${after.toFixed(1)} s, ${(100 * share).toFixed(0)} % of the time played, waits of ${JSON.stringify(now.waits)} ms`);
    if (JUDGED.includes(player) && share < MIN_SHARE) wrong.push(`media advanced ${(100 * share).toFixed(0)} % of the time in ${phase.phase}`);
  }
  if (player === 'page') wrong.push(...await useMenu(page));
  const end = await page.evaluate(look);
  console.log(`${player}: ${JSON.stringify(end)}`);
  const heights = player === 'page' ? end.heights : end.switches;
  if (!heights.some((height, index) => height < heights[index - 1])) wrong.push(`never went down: ${heights}`);
  if (!heights.some((height, index) => height > heights[index - 1] && heights[index - 1] < Math.max(...heights.slice(0, index)))) wrong.push(`never went up again: ${heights}`);
  if (end.back.length > 0) wrong.push(`numbers of pictures went back: ${JSON.stringify(end.back)}`);
  if (end.read < end.pictures * MIN_READ) wrong.push(`the numbers of ${end.read} of ${end.pictures} pictures were read`);
  if (end.errors.some((error) => error.includes('fatal'))) wrong.push(`${end.errors}`);
  if (JUDGED.includes(player)) {
    if (end.waits.some((ms) => ms > STALL_MS)) wrong.push(`stood still for ${end.waits.join(', ')} ms`);
    if (end.apart.some((ms) => ms > PICTURE_MS)) wrong.push(`no picture for ${end.apart.join(', ')} ms`);
    if (end.errors.length > 0) wrong.push(`${end.errors}`);
  }
  return wrong.map((text) => `${player}: ${text}`);
}

const browser = await launch();
const ends = await Promise.allSettled(players.map((player) => run(browser, player)));
await browser.close();
server.close();
const wrong = ends.flatMap((end, index) => (end.status === 'fulfilled' ? end.value : [`${players[index]}: ${String(end.reason).split('\n')[0]}`]));
console.log(JSON.stringify({ ok: wrong.length === 0, wrong }));
process.exit(wrong.length === 0 ? 0 : 1);
