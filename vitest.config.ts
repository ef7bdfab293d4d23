import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    pool: 'forks',
    // Metadata is changed twice, once in plain numbers, and compared: see space-map-checked.ts.
    env: { THINLUN_VERIFY: '1' },
    maxWorkers: Math.max(2, availableParallelism()),
    testTimeout: 60_000,
    hookTimeout: 60_000,
    slowTestThreshold: 2000,
    setupFiles: ['test/support/vitest-setup.ts'],
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/cli/**', 'test/e2e/**', 'test/kernel/**'],
        },
      },
      {
        extends: true,
        // These drive the built program from outside and measure it: one file at a time.
        test: {
          name: 'e2e',
          include: ['test/cli/**/*.test.ts', 'test/e2e/**/*.test.ts'],
          globalSetup: ['test/support/build-once.ts'],
          fileParallelism: false,
          // They wait for the disk, which on a busy machine takes its time to make gigabytes durable.
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
