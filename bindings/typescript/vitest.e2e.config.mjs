import { defineConfig } from 'vitest/config';

// In a network namespace of its own: see `npm run test:browsers`.
export default defineConfig({
  test: {
    reporters: ['verbose', './scripts/count.mjs'],
    include: ['e2e/**/*.test.ts'],
    testTimeout: 180_000,
    hookTimeout: 180_000,
    // One firewall.
    fileParallelism: false,
  },
});
