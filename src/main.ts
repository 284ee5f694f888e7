import { createApp } from './app.ts'
import { loadConfig } from './config/index.ts'
import { migrate } from './db/migrate.ts'
import { listenOn, reportFailedStart, runProcess } from './lifecycle.ts'
import { demandFitting, openServices, seeToBootstrapKey } from './services.ts'
import { createLogger } from './telemetry/logger.ts'

/** The API process. */
async function main(): Promise<void> {
  const config = loadConfig()
  const logger = createLogger({ level: config.logLevel, role: 'api' })
  await runProcess(logger, 0, async (shutdown) => {
    const services = await openServices(config, logger)
    shutdown.add(() => services.close())
    await migrate(config.databaseUrl ?? '', { log: (line) => logger.info(line) })
    await demandFitting(services)
    if (config.bootstrapApiKey !== null) await seeToBootstrapKey(services, config.bootstrapApiKey)
    const app = await createApp(services)
    shutdown.add(() => app.close())
    await listenOn('PORT', () => app.listen({ host: config.host, port: config.port }))
    services.reconciler.start()
    logger.info({ addresses: app.addresses() }, 'listening')
  })
}

await main().catch(reportFailedStart)
