import './global-setup.ts'

/** Jest's global teardown. */
export default async function teardown(): Promise<void> {
  await globalThis.turnmillTestServers?.stop()
}
