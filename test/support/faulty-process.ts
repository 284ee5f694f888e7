/** API, worker and reconciler in one process that strikes at the point named in its environment. */
import { createApp } from '../../src/app.ts'
import { loadConfig } from '../../src/config/index.ts'
import { runProcess } from '../../src/lifecycle.ts'
import { openServices } from '../../src/services.ts'
import { createLogger } from '../../src/telemetry/logger.ts'
import { createTurnWorker } from '../../src/turn-worker.ts'
import { createSendToProvider } from '../../src/models/index.ts'
import { armFault, installFaults, loseFirstJob, wrapSend, type Fault, type Reach } from './fault-points.ts'

// Whoever started it is gone, and nobody is left to stop it.
process.on('disconnect', () => process.exit(1))

const config = loadConfig()
const logger = createLogger({ level: config.logLevel, role: 'faulty' })
const point = process.env['FAULT_POINT']
const action = process.env['FAULT_ACTION'] as Fault['action']

/** Written at once: a process that is about to be killed flushes nothing. */
const say = (what: object): boolean => process.stdout.write(`${JSON.stringify(what)}\n`)

await runProcess(logger, config.drainMs, async (shutdown) => {
  const reach: Reach =
    point === undefined ? async () => undefined : armFault({ point, action }, () => say({ struck: point }))
  const sendToProvider = wrapSend(createSendToProvider({ allowPrivate: true }), reach)
  const services = await openServices(config, logger, { sendToProvider })
  shutdown.add(() => services.close())
  loseFirstJob(services)
  if (point !== undefined) installFaults(services, reach)
  const worker = createTurnWorker(services)
  shutdown.add(() => worker.stop())
  await worker.start()
  const app = await createApp(services)
  shutdown.add(() => app.close())
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  services.reconciler.start()
  say({ address })
})
