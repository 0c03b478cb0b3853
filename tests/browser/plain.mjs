// node plain.mjs SECONDS LIMIT_S URL…
// Plays each multivariant playlist with hls.js without its low-latency mode, as a player that knows no parts, for so many
// seconds after its first picture. Prints how far behind the broadcaster each one was, at most and in the end. Exit 0 if none was
// further behind than LIMIT_S, stood still or had a fatal error.
import http from 'node:http';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { launch } from './chromium.mjs';

const START_LIMIT_MS = 20_000;
const [seconds, limit, ...urls] = process.argv.slice(2);
const hlsJs = readFileSync(createRequire(import.meta.url).resolve('hls.js/dist/hls.min.js'));
const html = `<!doctype html><video muted playsinline></video><script src="/hls.js"></script><script>
const video = document.querySelector('video'), log = window.log = { stalls: 0, fatal: [], most: 0 };
const hls = new Hls({ lowLatencyMode: false });
window.behind = () => (hls.playingDate ? (Date.now() - hls.playingDate.getTime()) / 1000 : 0);
video.addEventListener('playing', () => { log.playing = true; });
video.addEventListener('waiting', () => { if (log.playing) log.stalls++; });
hls.on(Hls.Events.ERROR, (_, error) => { if (error.fatal) log.fatal.push(error.details); });
setInterval(() => { if (log.playing) log.most = Math.max(log.most, behind()); }, 100);
hls.loadSource(new URL(location).searchParams.get('url'));
hls.attachMedia(video);
video.play();
</script>`;
const server = http.createServer((request, response) => {
  const isScript = request.url.startsWith('/hls.js');
  response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
  response.end(isScript ? hlsJs : html);
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));

const browser = await launch();
const wrong = [];
try {
  await Promise.all(urls.map(async (url) => {
    const page = await (await browser.newContext()).newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/?url=${encodeURIComponent(url)}`);
    await page.waitForFunction(() => window.log.playing, null, { timeout: START_LIMIT_MS, polling: 20 });
    await page.waitForTimeout(seconds * 1000);
    const seen = await page.evaluate(() => ({ ...log, end: behind(), target: hls.latestLevelDetails.targetduration }));
    console.log(`behind ${url} ${JSON.stringify(seen)}`);
    if (!(seen.end > 0) || seen.most > limit || seen.stalls || seen.fatal.length) wrong.push(url);
  }));
} finally {
  await browser.close();
  server.close();
}
process.exit(wrong.length ? 1 : 0);
