// node join.mjs COUNT URL…
// Opens each watch page COUNT times, in a fresh profile each, and prints the milliseconds from the opening of the page to its
// first picture: `{"cold": […], "warm": […]}`. The first opening of a URL is cold: its edge follows the stream for nobody yet.
import { launch } from './chromium.mjs';

const LIMIT_MS = 20_000;
const [count, ...urls] = process.argv.slice(2);
const browser = await launch();
const report = { cold: [], warm: [] };
try {
  // The browser's own start is not the page's.
  await (await browser.newPage()).goto('about:blank');
  for (let round = 0; round < Number(count); round++) {
    for (const url of urls) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
      const page = await context.newPage();
      await page.addInitScript(() => {
        document.addEventListener('DOMContentLoaded', () => {
          document.querySelector('video').requestVideoFrameCallback(() => { window.firstPicture = performance.now(); });
        });
      });
      await page.goto(url);
      const shown = await page.waitForFunction(() => window.firstPicture, null, { timeout: LIMIT_MS, polling: 20 });
      report[round === 0 ? 'cold' : 'warm'].push(Math.round(await shown.jsonValue()));
      await context.close();
    }
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(report));
