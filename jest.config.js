/** @type {import('jest').Config} */
export default {
  extensionsToTreatAsEsm: ['.ts'],
  globalSetup: '<rootDir>/test/support/global-setup.ts',
  globalTeardown: '<rootDir>/test/support/global-teardown.ts',
  // Cases that run at a time in a file leave the file beside it room to breathe.
  maxConcurrency: 3,
  maxWorkers: 2,
  // What a file has loaded is never given back: a worker that holds more is slower at all it does.
  workerIdleMemoryLimit: '700MB',
  modulePathIgnorePatterns: ['<rootDir>/dist', '<rootDir>/bench'],
  testMatch: ['<rootDir>/test/**/*.test.ts'],
  testTimeout: 30_000,
  transform: { '\\.ts$': '<rootDir>/test/support/strip.mjs' },
}
