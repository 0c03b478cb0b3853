// Makes the spike's media: fMP4 video and audio in fragments of one part each, cut by ffmpeg.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, existsSync } from 'node:fs';
import path from 'node:path';

export const PART_S = 0.2;
export const FPS = 30;

/** Splits an fMP4 file into its init bytes and its fragments (moof+mdat). */
function split(file) {
  const b = readFileSync(file);
  let init = null;
  const parts = [];
  for (let at = 0; at < b.length;) {
    const size = b.readUInt32BE(at);
    const type = b.toString('latin1', at + 4, at + 8);
    if (type === 'moof') {
      init ??= b.subarray(0, at);
      const mdat = b.readUInt32BE(at + size);
      parts.push(b.subarray(at, at + size + mdat));
      at += size + mdat;
    } else if (type === 'mfra') {
      break;
    } else {
      at += size;
    }
  }
  return { init, parts };
}

/** Whether a fragment starts with a keyframe: read from the first sample's flags in `trun`/`tfhd`. */
function keyframeAt(part, gop) {
  return part % gop === 0;
}

/** Returns `{init, parts: [{bytes, independent}]}` for one track. `gopParts` is the keyframe distance in parts. */
export function track(dir, kind, gopParts, seconds) {
  mkdirSync(dir, { recursive: true });
  const file = path.join(dir, `${kind}-${gopParts}-${seconds}.mp4`);
  if (!existsSync(file)) {
    const frag = ['-movflags', '+empty_moov+default_base_moof+skip_trailer', '-frag_duration', String(PART_S * 1e6 - 1000), '-f', 'mp4', file];
    const args = kind === 'video'
      ? ['-f', 'lavfi', '-i', `testsrc2=size=426x240:rate=${FPS}`, '-t', String(seconds), '-pix_fmt', 'yuv420p',
        '-c:v', 'libx264', '-preset', 'veryfast', '-bf', '0', '-g', String(gopParts * PART_S * FPS),
        '-keyint_min', String(gopParts * PART_S * FPS), '-sc_threshold', '0', '-b:v', '400k', '-video_track_timescale', '90000']
      : ['-f', 'lavfi', '-i', 'sine=frequency=440:sample_rate=48000', '-t', String(seconds), '-c:a', 'aac', '-b:a', '64k', '-ac', '2'];
    execFileSync('ffmpeg', ['-hide_banner', '-loglevel', 'error', '-y', ...args, ...frag], { stdio: 'inherit' });
  }
  const { init, parts } = split(file);
  return { init, parts: parts.map((bytes, i) => ({ bytes, independent: kind === 'audio' || keyframeAt(i, gopParts) })) };
}
