// Serves LL-HLS playlists that grow with the clock, so that one question can be asked at a time:
// how much must a fresh playlist hold before hls.js starts?
import http from 'node:http';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { PART_S, track } from './media.mjs';

const FIRST_MSN = 1000;
const hlsJs = readFileSync(createRequire(import.meta.url).resolve('hls.js/dist/hls.js'));

const page = (lowLatency) => `<!doctype html><video muted playsinline width=426></video><script src="/hls.js"></script><script>
const v = document.querySelector('video'), t0 = performance.now(), log = window.log = { waiting: 0, errors: [] };
const at = () => Math.round(performance.now() - t0);
v.addEventListener('playing', () => log.playing ??= at());
v.addEventListener('waiting', () => { if (log.playing !== undefined) log.waiting++; });
const h = window.h = new Hls({ lowLatencyMode: ${lowLatency} });
h.on(Hls.Events.ERROR, (_, d) => log.errors.push(at() + ' ' + d.details + (d.fatal ? ' FATAL' : '')));
h.loadSource('/index.m3u8'); h.attachMedia(v); v.play().catch(() => {});
</script>`;

/** One live stream. `o`: gaps, gapParts (list them with GAP=YES), minParts (held until then), gopParts, cuts, startTag, target, seconds, age (s of media before the first request), window, lowLatency. */
export async function serve(dir, o) {
  const tracks = {
    video: { ...track(dir, 'video', o.gopParts, o.seconds), part: PART_S, segs: [] },
    audio: { ...track(dir, 'audio', 1, o.seconds), part: (10 * 1024) / 48000, segs: [] },
  };
  // Segment starts in seconds; `cuts` is a repeated pattern of segment lengths in parts.
  const starts = [0];
  for (let i = 0; starts.at(-1) < o.seconds; i++) starts.push(starts.at(-1) + o.cuts[i % o.cuts.length] * PART_S);
  const gapLen = 2;
  for (const t of Object.values(tracks)) {
    t.parts.forEach((p, i) => {
      const seg = starts.findLastIndex((s) => s <= i * t.part + 1e-6);
      (t.segs[seg] ??= []).push({ ...p, end: (i + 1) * t.part });
    });
  }
  let began;
  const now = () => (began === undefined ? 0 : (performance.now() - began) / 1000 + o.age);
  const until = async (ok) => { while (!ok()) await new Promise((r) => setTimeout(r, 5)); };

  /** The state of one track at this moment: complete segments, and the open one's parts. */
  function state(t) {
    const n = now();
    const complete = t.segs.findIndex((s) => s[s.length - 1].end > n);
    return { complete, open: t.segs[complete].filter((p) => p.end <= n) };
  }
  /** EXT-X-START at the newest keyframe that is a hold-back away from the end. */
  function startTag(t, complete, open) {
    if (!o.startTag) return [];
    const edge = open.at(-1)?.end ?? t.segs[complete - 1].at(-1).end;
    const gop = o.gopParts * PART_S;
    const key = Math.floor((edge - (o.holdBack ?? 0.66)) / gop) * gop;
    return [`#EXT-X-START:TIME-OFFSET=${(key + 0.02 - edge).toFixed(3)},PRECISE=YES`];
  }
  function playlist(name) {
    const t = tracks[name];
    const { complete, open } = state(t);
    const first = Math.max(-o.gaps, complete - o.window);
    const out = ['#EXTM3U', '#EXT-X-VERSION:9', `#EXT-X-TARGETDURATION:${o.target}`,
      `#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=${o.holdBack ?? 0.66},HOLD-BACK=${3 * o.target}`, '#EXT-X-PART-INF:PART-TARGET=0.22',
      `#EXT-X-MEDIA-SEQUENCE:${FIRST_MSN + first}`, ...startTag(t, complete, open), ...(o.cuts.length === 1 && o.cuts[0] % o.gopParts === 0 ? ['#EXT-X-INDEPENDENT-SEGMENTS'] : []), `#EXT-X-MAP:URI="/${name}/init.mp4"`];
    const parts = (s, list) => list.forEach((p, i) => out.push(
      `#EXT-X-PART:DURATION=${t.part.toFixed(5)},URI="/${name}/${s}.${i}.m4s"${p.independent ? ',INDEPENDENT=YES' : ''}`));
    for (let s = first; s < complete; s++) {
      if (s < 0) {
        const count = Math.round(gapLen / PART_S);
        if (o.gapParts && s >= complete - 3) for (let i = 0; i < count; i++) out.push(`#EXT-X-PART:DURATION=${PART_S.toFixed(5)},URI="/${name}/${s}.${i}.m4s",GAP=YES`);
        out.push('#EXT-X-GAP', `#EXTINF:${gapLen.toFixed(5)},`, `/${name}/${s}.m4s`);
        continue;
      }
      if (s >= complete - 3) parts(s, t.segs[s]);
      out.push(`#EXTINF:${(t.segs[s].length * t.part).toFixed(5)},`, `/${name}/${s}.m4s`);
    }
    parts(complete, open);
    out.push(`#EXT-X-PRELOAD-HINT:TYPE=PART,URI="/${name}/${complete}.${open.length}.m4s"`);
    return out.join('\n') + '\n';
  }
  async function media(res, name, file) {
    const t = tracks[name];
    if (file === 'init.mp4') return res.end(t.init);
    const m = /^(-?\d+)(?:\.(\d+))?\.m4s$/.exec(file);
    const seg = t.segs[Number(m[1])];
    if (!seg) { res.statusCode = 404; return res.end(); }
    if (m[2] === undefined) return res.end(Buffer.concat(seg.map((p) => p.bytes)));
    const p = seg[Number(m[2])];
    if (!p) { res.statusCode = 404; return res.end(); }
    await until(() => p.end <= now());
    return res.end(p.bytes);
  }
  async function handle(req, res) {
    const url = new URL(req.url, 'http://x');
    res.setHeader('cache-control', 'no-store');
    if (url.pathname === '/') { res.setHeader('content-type', 'text/html'); return res.end(page(o.lowLatency ?? true)); }
    if (url.pathname === '/hls.js') { res.setHeader('content-type', 'text/javascript'); return res.end(hlsJs); }
    if (url.pathname === '/index.m3u8') {
      began ??= performance.now();
      return res.end('#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",DEFAULT=YES,AUTOSELECT=YES,URI="/audio.m3u8"\n'
        + '#EXT-X-STREAM-INF:BANDWIDTH=600000,CODECS="avc1.64000d,mp4a.40.2",RESOLUTION=426x240,AUDIO="a"\n/video.m3u8\n');
    }
    const pl = /^\/(video|audio)\.m3u8$/.exec(url.pathname);
    if (pl) {
      const t = tracks[pl[1]];
      if (url.searchParams.has('_HLS_msn')) {
        const msn = Number(url.searchParams.get('_HLS_msn')) - FIRST_MSN;
        const part = Number(url.searchParams.get('_HLS_part') ?? -1);
        await until(() => { const s = state(t); return s.complete > msn || (s.complete === msn && part >= 0 && s.open.length > part); });
      } else {
        await until(() => { const s = state(t); return s.complete > 0 || s.open.length >= o.minParts; });
      }
      res.setHeader('content-type', 'application/vnd.apple.mpegurl');
      return res.end(playlist(pl[1]));
    }
    const [, name, file] = url.pathname.split('/');
    if (tracks[name] && file) return media(res, name, file);
    res.statusCode = 404;
    return res.end();
  }
  const server = http.createServer((req, res) => handle(req, res).catch((e) => { console.error(e); res.destroy(); }));
  await new Promise((r) => server.listen(0, '127.0.0.1', r));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => { server.closeAllConnections(); server.close(); }, now };
}
