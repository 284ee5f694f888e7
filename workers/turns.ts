import { dropAmbientCredentials, loadConfig } from '../src/config.ts'
import { migrate } from '../src/db/migrate.ts'
import { reportFailedStart, runProcess } from '../src/lifecycle.ts'
import { demandFitting, openServices } from '../src/services.ts'
import { createLogger } from '../src/telemetry/logger.ts'
import { createMetricsServer } from '../src/telemetry/metrics-server.ts'
import { createTurnWorker } from '../src/turn-worker.ts'

/** A worker process for turns. */
async function main(): Promise<void> {
  const config = loadConfig()
  const logger = createLogger({ level: config.logLevel, role: 'worker' })
  dropAmbientCredentials()
  await runProcess(logger, config.drainMs, async (shutdown) => {
    const services = await openServices(config, logger)
    shutdown.add(() => services.close())
    await migrate(config.databaseUrl ?? '')
    await demandFitting(services)
    if (config.metricsPort !== null) {
      const metrics = createMetricsServer(services.metrics, config.host, config.metricsPort)
      shutdown.add(() => metrics.stop())
      await metrics.start()
    }
    const worker = createTurnWorker(services)
    shutdown.add(() => worker.stop())
    await worker.start()
    services.reconciler.start()
    logger.info({ concurrency: config.workerConcurrency, queue: services.backend.kind }, 'working')
  })
}

await main().catch(reportFailedStart)
