import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/** The whole package in one minified module, as text. */
export async function bundle() {
  const result = await build({
    entryPoints: [fileURLToPath(new URL('../src/index.ts', import.meta.url))],
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    charset: 'utf8',
    write: false,
    banner: { js: '// wireloom: bindings/typescript. Built by `npm run build`.' },
  });
  return result.outputFiles[0].text;
}
