// Runs the tests in browsers, in a network namespace of their own, so that their firewall is nobody else's. Needs root.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const command = 'ip link set lo up && exec "$@"';
const vitest = [process.execPath, `${root}node_modules/vitest/vitest.mjs`, 'run', '--config', 'vitest.e2e.config.mjs'];
const { status } = spawnSync('unshare', ['--net', '--', 'sh', '-c', command, 'sh', ...vitest, ...process.argv.slice(2)], {
  cwd: root,
  stdio: 'inherit',
});
process.exit(status ?? 1);
