import type { ScenarioContext } from '../scenarios/scenario.ts'
import type { Backend } from './backends.ts'
import { createDatabase, startQueueRedis, startScriptedProvider, type Server } from './ground.ts'
import type { ProviderJournal } from './provider-journal.ts'
import { deployTurnmill, type Deployment } from './turnmill.ts'

/** A Turnmill on one backend, in front of a provider that does what each message tells it. */
export interface Trial {
  backend: Backend
  databaseUrl: string
  turnmill: Deployment
  journal: ProviderJournal
  stop(): Promise<void>
}

export interface TrialOptions {
  backend: Backend
  postgres: Server
  users: number
  /** Of the provider, see `scripted-provider-server.ts`. */
  provider: Readonly<Record<string, string>>
  /** What differs from Turnmill's defaults. */
  settings?: Readonly<Record<string, string>>
}

export async function startTrial({ cleanup, options }: ScenarioContext, trial: TrialOptions): Promise<Trial> {
  const { backend, postgres, users } = trial
  const provider = await startScriptedProvider(cleanup, trial.provider)
  const redis = backend === 'redis' ? await startQueueRedis(cleanup) : null
  const stage = {
    backend,
    databaseUrl: await createDatabase(postgres, `turnmill_${backend}`),
    redisUrl: redis === null ? null : `${redis.url}/0`,
    providerUrl: provider.url,
    users,
    profileDir: undefined,
  }
  const { settings = {} } = trial
  const turnmill = await deployTurnmill(cleanup, stage, { checkout: options.checkout, settings })
  const stop = async (): Promise<void> => {
    await Promise.all([turnmill.api.stop(), turnmill.worker.stop()])
  }
  return { backend, databaseUrl: stage.databaseUrl, turnmill, journal: provider.journal, stop }
}

/** Warnings and errors that its processes logged; nothing where there were none. */
export function reportTroubles({ backend, turnmill }: Trial): string {
  const troubles = [...turnmill.api.complaints(), ...turnmill.worker.complaints()]
  if (troubles.length === 0) return ''
  return [`troubles, ${backend}:`, ...troubles.map(([text, count]) => `  ${count} × ${text}`)].join('\n')
}
