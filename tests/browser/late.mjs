// node late.mjs URL REPORT.json SECONDS
// Opens a watch page and looks at it for SECONDS: when the picture moved first, when sound and pictures were decoded, where
// the video stood. The page's own reloads of the stream must not take it back.
import { writeFile } from 'node:fs/promises';
import { launch } from './chromium.mjs';

const LOOK_MS = 250;

/// Runs in the page.
function look() {
  const v = document.querySelector('video');
  return v && { time: v.currentTime, sound: v.webkitAudioDecodedByteCount, picture: v.webkitVideoDecodedByteCount, paused: v.paused,
    behind: v.buffered.length > 0 ? v.buffered.end(v.buffered.length - 1) - v.currentTime : null };
}

const [url, output, seconds] = process.argv.slice(2);
const browser = await launch();
const report = { moved: null, sound: null, picture: null, longestStill: 0, console: [] };
try {
  const page = await browser.newPage();
  page.on('pageerror', (error) => report.console.push(String(error)));
  await page.goto(url);
  const began = Date.now();
  let last = { time: 0, sound: 0, picture: 0 };
  let movedAt = null;
  // A player that starts anew counts its bytes from zero: growth is what tells that they are decoded.
  while (Date.now() - began < Number(seconds) * 1000) {
    await page.waitForTimeout(LOOK_MS);
    const now = await page.evaluate(look).catch(() => null);
    if (!now) continue;
    const at = (Date.now() - began) / 1000;
    if (now.time !== last.time) {
      report.moved ??= at;
      movedAt = at;
    } else if (movedAt !== null) {
      report.longestStill = Math.max(report.longestStill, at - movedAt);
    }
    if (now.sound > last.sound) report.sound ??= at;
    if (now.picture > last.picture) report.picture ??= at;
    last = now;
  }
  await writeFile(output, JSON.stringify(report));
} finally {
  await browser.close();
}
