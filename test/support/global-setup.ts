import { chromiumPath } from './chromium.ts'
import { startTestServers } from './test-servers.ts'
import type { TestServers } from './test-servers.ts'

declare global {
  /** Handed from Jest's global setup to its global teardown, which share one process. */
  var turnmillTestServers: TestServers | undefined
}

/** Jest's global setup. @throws {Error} where something is missing, before minutes have gone by without it. */
export default async function setup(): Promise<void> {
  chromiumPath()
  globalThis.turnmillTestServers = await startTestServers()
}
