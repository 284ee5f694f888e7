import type { NewInterception, Settlement } from '../../src/gateway/books.ts'
import { createKeyHealth } from '../../src/gateway/key-health.ts'
import { openCall, type OpeningEffects } from '../../src/gateway/open-call.ts'
import { TurnmillError } from '../../src/protocol/errors.ts'
import { Secret } from '../../src/protocol/secret.ts'

const CREDENTIAL = { id: 'k', hint: 'sk-…1', reveal: () => new Secret('sk-1') }
const PROVIDER = {
  ...{ id: 'p', name: 'raw', type: 'openai', baseUrl: 'http://p/v1', enabled: true, attribution: false },
  ...{ allowByok: false, extraHeaders: {}, centralKeys: [CREDENTIAL], ownKey: null },
}
const ASKING = {
  request: { method: 'GET', target: '/', headers: new Headers(), body: null, signal: null },
  caller: { kind: 'key', apiKeyId: 'a', client: null },
  endpoint: { path: '/v1/models', types: ['openai'], wireFormat: null },
  body: { asked: null, bytes: null },
  subject: { apiKeyId: 'a', provider: 'raw', model: '', modelConfigId: null },
  startedAt: 0,
} as unknown as Parameters<typeof openCall>[0]

test('a call of which nobody knows whether it was written down is not made, and taken back without cost', async () => {
  const settled: Settlement[] = []
  const waits: number[] = []
  let written = ''
  const effects = {
    authoriser: {
      authorise: async () => ({
        userId: 'u',
        provider: PROVIDER,
        model: null,
        budgeted: false,
        version: '1',
      }),
      typeOf: () => null,
    },
    books: {
      open: async ({ id }: NewInterception) => {
        written = id
        throw new TurnmillError('database_unavailable', 'the connection broke')
      },
      settle: async (settlement: Settlement) => void settled.push(settlement),
    },
    health: createKeyHealth(),
    callLimitMs: 1000,
    wait: async (ms: number) => void waits.push(ms),
  } as unknown as OpeningEffects
  await expect(openCall(ASKING, effects)).rejects.toMatchObject({ code: 'database_unavailable' })
  await new Promise((resolve) => setImmediate(resolve))
  // Once more in the end: the statement may have gone on after its connection broke.
  expect(settled).toMatchObject([
    { id: written, costMicros: 0, usage: null },
    { id: written, costMicros: 0 },
  ])
  expect(waits).toEqual([1000, 10_000])
})
