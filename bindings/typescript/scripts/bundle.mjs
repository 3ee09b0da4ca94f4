import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/**
 * Properties that only the package itself sees: they have short names in the bundle. A test looks that none is in the public types, and
 * that each is still there.
 */
export const INTERNAL =
  'webTransportUrl isTopic isPrompt isOnce sentAt isLeft isDraining hasStream canStream isOver messageBufferSize readTimeoutMs ' +
  'isConnected subscriptions answers probe unsent deliver restore lose remember renew token pending setSession limit';

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
    mangleProps: new RegExp(`^(${INTERNAL.replaceAll(' ', '|')})$`),
    banner: { js: '// wireloom: bindings/typescript. Built by `npm run build`.' },
  });
  return result.outputFiles[0].text;
}
