/** API, worker and reconciler in one process, which does what it is told over its channel and strikes where it is told to. */
import { flushCompileCache } from 'node:module'
import { createApp } from '../../src/app.ts'
import { loadConfig } from '../../src/config/index.ts'
import { runProcess } from '../../src/lifecycle.ts'
import { openServices } from '../../src/services.ts'
import { createLogger } from '../../src/telemetry/logger.ts'
import { createTurnWorker } from '../../src/turn-worker.ts'
import { createSendToProvider } from '../../src/models/index.ts'
import { createFaultPoints, installFaults, makeQueueLossy, wrapSend, type Fault, type Strike } from './fault-points.ts' // prettier-ignore

/** What the process is told. Each order is answered by a word of its name. */
export type Order =
  /** Begins to work: until then it has only been loaded. */
  | { order: 'work' }
  /** Loses its next job, and strikes at the point. */
  | { order: 'arm'; fault: Fault }
  /** Drains its worker as in a deployment, and works on with another one. */
  | { order: 'drain' }

/** What the process says, a line each. */
export type Word =
  | { said: 'ready' }
  | { said: 'work'; address: string }
  | { said: 'arm' }
  | { said: 'drain' }
  | { said: 'struck'; strike: Strike }

// Whoever started it is gone, and nobody is left to stop it.
process.on('disconnect', () => process.exit(1))

const config = loadConfig()
const logger = createLogger({ level: config.logLevel, role: 'faulty' })

/** Written at once: a process that is about to be killed flushes nothing. */
const say = (word: Word): boolean => process.stdout.write(`${JSON.stringify(word)}\n`)

await runProcess(logger, config.drainMs, async (shutdown) => {
  const { reach, arm } = createFaultPoints((strike) => say({ said: 'struck', strike }))
  const sendToProvider = wrapSend(createSendToProvider({ allowPrivate: true }), reach)
  const services = await openServices(config, logger, { sendToProvider })
  shutdown.add(() => services.close())
  const { loseNext } = makeQueueLossy(services)
  installFaults(services, reach)
  let worker = createTurnWorker(services)
  shutdown.add(() => worker.stop())

  async function work(): Promise<string> {
    loseNext()
    await worker.start()
    const app = await createApp(services)
    shutdown.add(() => app.close())
    const address = await app.listen({ host: '127.0.0.1', port: 0 })
    services.reconciler.start()
    return address
  }

  async function drain(): Promise<void> {
    await worker.stop()
    worker = createTurnWorker(services)
    await worker.start()
  }

  async function obey(message: Order): Promise<void> {
    switch (message.order) {
      case 'work':
        say({ said: 'work', address: await work() })
        return
      case 'arm':
        loseNext()
        arm(message.fault)
        say({ said: 'arm' })
        return
      case 'drain':
        await drain()
        say({ said: 'drain' })
    }
  }

  process.on('message', (message) => void obey(message as Order))
  // The next one of these loads faster.
  flushCompileCache()
  say({ said: 'ready' })
})
