import { createApp } from '../../src/app.ts'
import { loadConfig } from '../../src/config/index.ts'
import type { Services } from '../../src/services.ts'

/** Stands in for a service: describing the API calls none. */
const uncalled = (name: string): never =>
  new Proxy(Object.freeze({}), {
    get: (_, property) => () => {
      throw new Error(`${name}.${String(property)} was called, expected the API to be described without it`)
    },
  }) as never

const describedServices = (): Services => ({
  config: loadConfig({}),
  logger: uncalled('logger'),
  db: uncalled('db'),
  backend: uncalled('backend'),
  queue: uncalled('queue'),
  auxiliaryQueue: uncalled('auxiliaryQueue'),
  parts: uncalled('parts'),
  chats: uncalled('chats'),
  auxiliaryRuns: uncalled('auxiliaryRuns'),
  reconciler: uncalled('reconciler'),
  encryption: uncalled('encryption'),
  gateway: uncalled('gateway'),
  providerFetch: uncalled('providerFetch'),
  debugRuns: uncalled('debugRuns'),
  metrics: uncalled('metrics'),
  pepper: uncalled('pepper'),
  close: async () => undefined,
})

/** With sorted keys, so that moving code about changes nothing. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(entries.map(([key, field]) => [key, sorted(field)]))
}

/** `docs/openapi.json`, as the API itself answers at `/openapi.json`. */
export async function describeApi(): Promise<string> {
  const app = await createApp(describedServices())
  try {
    await app.ready()
    return `${JSON.stringify(sorted(app.swagger()), null, 2)}\n`
  } finally {
    await app.close()
  }
}
