import { startTestServers } from './test-servers.ts'
import type { TestServers } from './test-servers.ts'

declare global {
  /** Handed from Jest's global setup to its global teardown, which share one process. */
  var turnmillTestServers: TestServers | undefined
}

/** Jest's global setup. */
export default async function setup(): Promise<void> {
  globalThis.turnmillTestServers = await startTestServers()
}
