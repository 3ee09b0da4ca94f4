// Builds dist/ (modules and types, by the TypeScript compiler) and wireloom.min.js (everything in one file, by esbuild).
// The latter is committed, so that the Rust examples can serve it without Node; a test compares it with a build.
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { bundle } from './bundle.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
rmSync(`${root}dist`, { recursive: true, force: true });
execFileSync(process.execPath, [`${root}node_modules/typescript/bin/tsc`, '-p', root], { stdio: 'inherit' });
// `npm run build -- --check` leaves the committed file as it is, for the test to compare.
if (!process.argv.includes('--check')) writeFileSync(`${root}wireloom.min.js`, await bundle());
