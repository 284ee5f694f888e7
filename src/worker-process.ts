import { dropAmbientCredentials, loadConfig } from './config/index.ts'
import { migrate } from './db/migrate.ts'
import { listenOn, runProcess } from './lifecycle.ts'
import { loadAdapters } from './providers/index.ts'
import { demandFitting, openServices, type Services } from './services.ts'
import { createLogger } from './telemetry/logger.ts'
import { createMetricsServer } from './telemetry/metrics-server.ts'
import { joinWorkers, type Worker } from './worker.ts'

/** Runs a worker process for one queue or several, with the reconciler and, where it has a port, its metrics. */
export async function runWorkerProcess(
  ...workerMakers: readonly ((services: Services) => Worker)[]
): Promise<void> {
  const config = loadConfig()
  const logger = createLogger({ level: config.logLevel, role: 'worker' })
  dropAmbientCredentials()
  await runProcess(logger, config.drainMs, async (shutdown) => {
    const [services] = await Promise.all([openServices(config, logger), loadAdapters()])
    shutdown.add(() => services.close())
    await migrate(config.databaseUrl ?? '', { log: (line) => logger.info(line) })
    await demandFitting(services)
    if (config.metricsPort !== null) {
      const metrics = createMetricsServer(services.metrics, config.host, config.metricsPort)
      shutdown.add(() => metrics.stop())
      await listenOn('TURNMILL_METRICS_PORT', () => metrics.start())
    }
    const worker = joinWorkers(workerMakers.map((make) => make(services)))
    shutdown.add(() => worker.stop())
    await worker.start()
    services.reconciler.start()
    logger.info({ concurrency: config.workerConcurrency, queue: services.backend.kind }, 'working')
  })
}
