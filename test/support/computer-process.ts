/** A process that uses a computer and waits: prints the process ID of its browser. Its argument is Chromium's path. */
import { createPlaywrightDriver } from '../../src/computer/index.ts'
import { chromiumsOf } from './chromium.ts'

const driver = createPlaywrightDriver({
  executablePath: process.argv[2] ?? '',
  sandbox: null,
  size: { width: 640, height: 400 },
  rules: { allowUrl: async () => true },
})
await driver.open({ chatId: 'chat' })
process.stdout.write(`${chromiumsOf().join()}\n`)
