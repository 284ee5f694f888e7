import { createApp } from '../src/app.ts'
import { demand, dropAmbientCredentials, loadConfig } from '../src/config.ts'
import { migrate } from '../src/db/migrate.ts'
import { startLocalGround, startProviders } from '../src/development/index.ts'
import { ensureBootstrapKey } from '../src/keys/index.ts'
import { reportFailedStart, runProcess } from '../src/lifecycle.ts'
import type { Secret } from '../src/protocol/secret.ts'
import { openServices } from '../src/services.ts'
import { createLogger } from '../src/telemetry/logger.ts'
import { createTurnWorker } from '../src/turn-worker.ts'

/** API and workers in one process, on whatever is configured; what is not is started here. */
async function main(): Promise<void> {
  const given = loadConfig()
  const logger = createLogger({ level: given.logLevel, role: 'all' })
  dropAmbientCredentials()
  await runProcess(logger, given.drainMs, async (shutdown) => {
    const ground = await startLocalGround(given)
    shutdown.add(() => ground.stop())
    const { config } = ground
    await migrate(demand(config, 'databaseUrl', 'expected a database'))
    const services = await openServices(config, logger)
    shutdown.add(() => services.close())

    const token = demand(config, 'bootstrapApiKey', 'expected a first key')
    await ensureBootstrapKey(services.db, services.pepper, token)
    const simulated = await startProviders(services)
    if (simulated !== null) shutdown.add(() => simulated.stop())

    const worker = createTurnWorker(services)
    shutdown.add(() => worker.stop())
    worker.start()
    const app = await createApp(services)
    shutdown.add(() => app.close())
    const address = await app.listen({ host: config.host, port: config.port })
    services.reconciler.start()
    process.stdout.write(welcome(address, token, simulated !== null))
  })
}

const welcome = (address: string, token: Secret, simulated: boolean): string => `
Turnmill listens on ${address}
API key  ${token.reveal()}
${simulated ? 'Models   simulated; set OPENAI_API_KEY or ANTHROPIC_API_KEY for real ones\n' : ''}
Create a chat:

  curl ${address}/v1/chats \\
    -H 'Authorization: Bearer ${token.reveal()}' \\
    -H 'Content-Type: application/json' \\
    -d '{"content": "Hello!"}'

Watch it, with the chat's id from the answer:

  curl -N ${address}/v1/chats/<id>/stream -H 'Authorization: Bearer ${token.reveal()}'

Ctrl-C stops everything; the data stays.
`

await main().catch(reportFailedStart)
