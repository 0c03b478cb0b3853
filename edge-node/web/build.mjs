// Bundles the page into dist/. Scripts and styles are named by a hash of their content, so that caches keep them for ever.
import { copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const root = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const at = (...p) => path.join(root, ...p);
// The directory is emptied and not removed, because cargo watches it.
mkdirSync(at('dist'), { recursive: true });
for (const old of readdirSync(at('dist'))) rmSync(at('dist', old), { force: true });

const result = await build({
  entryPoints: { watch: at('src/watch.js'), style: at('src/style.css') },
  entryNames: '[name]-[hash]',
  outdir: at('dist'),
  bundle: true,
  minify: true,
  format: 'iife',
  target: ['es2020'],
  metafile: true,
  legalComments: 'none',
});
const named = {};
for (const [file, meta] of Object.entries(result.metafile.outputs)) {
  if (!meta.entryPoint) continue;
  const name = path.basename(file);
  named[path.basename(meta.entryPoint)] = name;
  // The edge serves both forms; a browser takes a third of the bytes.
  writeFileSync(at('dist', `${name}.gz`), gzipSync(readFileSync(at('dist', name)), { level: 9 }));
}
copyFileSync(at('node_modules/hls.js/LICENSE'), at('dist/hls.js-license.txt'));
for (const page of ['index.html', 'watch.html']) {
  const text = readFileSync(at('src', page), 'utf8')
    .replaceAll('{{style}}', `/assets/${named['style.css']}`)
    .replaceAll('{{script}}', `/assets/${named['watch.js']}`);
  writeFileSync(at('dist', page), text);
}
console.log('built', Object.values(named).join(', '));
