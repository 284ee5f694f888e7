import { createApp } from './app.ts'
import { createAuxiliaryWorker } from './auxiliary-worker.ts'
import { demand, type Config } from './config/index.ts'
import { migrate } from './db/migrate.ts'
import { startLocalGround, startProviders, type SimulatedProvider } from './development/index.ts'
import { listenOn, type Shutdown } from './lifecycle.ts'
import type { Secret } from './protocol/secret.ts'
import { demandFitting, openServices, seeToBootstrapKey, type Services } from './services.ts'
import type { Logger } from './telemetry/logger.ts'
import { createTurnWorker } from './turn-worker.ts'
import { joinWorkers } from './worker.ts'

/** API and worker of one process, running. */
export interface AllInOne {
  /** Where the API listens: `http://<host>:<port>`. */
  address: string
  /** The first admin key. */
  token: Secret
  /** The provider that stands in where no key is set; `null` where none of its models is enabled and there is another one. */
  simulated: SimulatedProvider | null
  services: Services
}

/**
 * Starts API and worker on whatever is configured; what is not (Postgres, the secrets, a provider) is started or made here.
 *
 * @param shutdown gets everything that was started, one by one, so that a start that fails half-way can be undone.
 */
export async function startAll(given: Config, logger: Logger, shutdown: Shutdown): Promise<AllInOne> {
  const ground = await startLocalGround(given)
  shutdown.add(() => ground.stop())
  const config = { ...ground.config, allowPrivateProviders: given.allowPrivateProviders ?? true }
  await migrate(demand(config, 'databaseUrl', 'expected a database'), { log: (line) => logger.info(line) })
  const services = await openServices(config, logger)
  shutdown.add(() => services.close())
  await demandFitting(services)

  const token = demand(config, 'bootstrapApiKey', 'expected a first key')
  await seeToBootstrapKey(services, token)
  const simulated = await startProviders(services)
  if (simulated !== null) shutdown.add(() => simulated.stop())

  const address = await startRoles(services, shutdown)
  return { address, token, simulated, services }
}

/** The API goes first when it all stops, so that nothing is accepted any more while the worker drains. */
async function startRoles(services: Services, shutdown: Shutdown): Promise<string> {
  const worker = joinWorkers([createTurnWorker(services), createAuxiliaryWorker(services)])
  shutdown.add(() => worker.stop())
  await worker.start()
  const app = await createApp(services)
  shutdown.add(() => app.close())
  const { host, port } = services.config
  const address = await listenOn('PORT', () => app.listen({ host, port }))
  services.reconciler.start()
  return address
}
