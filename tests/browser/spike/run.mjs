// node spike/run.mjs [fresh|join|start|all]: prints one table row per scenario (docs/adr/0002).
import path from 'node:path';
import os from 'node:os';
import { launch } from '../chromium.mjs';
import { serve } from './server.mjs';

const dir = path.join(os.tmpdir(), 'millrace-spike-media');
const WATCH_MS = 9000;
const base = { gaps: 0, gapParts: false, minParts: 1, gopParts: 10, cuts: [10], target: 4, seconds: 90, age: 0, window: 8 };
const scenarios = { fresh: [], join: [] };
for (const minParts of [1, 3, 5]) {
  scenarios.fresh.push({ ...base, minParts });
  for (const gaps of [1, 2, 3, 6]) scenarios.fresh.push({ ...base, gaps, minParts });
  for (const gaps of [1, 2, 3]) scenarios.fresh.push({ ...base, gaps, minParts, gapParts: true });
}
for (const age of [2.1, 4.1, 6.1]) scenarios.fresh.push({ ...base, age });
// Keyframes every 8.4 s: cut at TARGETDURATION only; cut at every keyframe too; one segment per GOP.
const gopParts = 42;
for (const cut of [{ cuts: [20] }, { cuts: [20, 20, 2] }, { cuts: [42], target: 10 }]) {
  for (const age of [21, 24.3, 27.1, 31]) scenarios.join.push({ ...base, ...cut, age, gopParts });
  scenarios.join.push({ ...base, ...cut, gopParts, gaps: 1, gapParts: true });
}
scenarios.join.push({ ...base, cuts: [20, 20, 2], age: 27.1, gopParts, lowLatency: false });
// The same with EXT-X-START at the newest keyframe.
scenarios.start = [];
for (const cuts of [[20], [20, 20, 2]]) for (const age of [21, 24.3, 27.1, 31]) scenarios.start.push({ ...base, cuts, age, gopParts, startTag: true });

async function run(browser, o) {
  const server = await serve(dir, o);
  const page = await browser.newPage();
  await page.goto(server.url);
  await page.waitForTimeout(WATCH_MS);
  const r = await page.evaluate(() => ({
    ...log, time: v.currentTime, behind: h.latency, buffered: v.buffered.length ? v.buffered.end(v.buffered.length - 1) : 0,
    dropped: v.getVideoPlaybackQuality().droppedVideoFrames, frames: v.getVideoPlaybackQuality().totalVideoFrames,
  }));
  await page.close();
  server.close();
  return r;
}

const which = process.argv[2] ?? 'all';
const browser = await launch();
console.log('START | gaps | GAP parts | parts held | age s | gop s | seg s | LL | playing after ms | stalls | frames | latency s | errors');
for (const o of which === 'all' ? Object.values(scenarios).flat() : scenarios[which]) {
  const r = await run(browser, o);
  console.log([o.startTag ?? false, o.gaps, o.gapParts, o.minParts, o.age, (o.gopParts * 0.2).toFixed(1), o.cuts.map((c) => (c * 0.2).toFixed(1)).join('+'), o.lowLatency ?? true, r.playing ?? 'never', r.waiting, r.frames,
    r.behind?.toFixed(2), [...new Set(r.errors.map((e) => e.replace(/^\d+ /, '')))].join(', ') + (r.errors.length ? ` (${r.errors.length})` : '')].join(' | '));
}
await browser.close();
