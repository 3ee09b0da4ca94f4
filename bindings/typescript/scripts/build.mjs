// Builds dist/ (modules and types, by the TypeScript compiler) and wireloom.min.js (everything in one file, by esbuild), and brings
// the licences, which npm takes from this folder only.
// The latter is committed, so that the Rust examples can serve it without Node; a test compares it with a build.
import { execFileSync } from 'node:child_process';
import { copyFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { bundle } from './bundle.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
rmSync(`${root}dist`, { recursive: true, force: true });
execFileSync(process.execPath, [`${root}node_modules/typescript/bin/tsc`, '-p', root], { stdio: 'inherit' });
for (const name of ['LICENSE-APACHE', 'LICENSE-MIT']) copyFileSync(`${root}../../${name}`, root + name);
// `npm run build -- --check` leaves the committed file as it is, for the test to compare.
if (!process.argv.includes('--check')) writeFileSync(`${root}wireloom.min.js`, await bundle());
