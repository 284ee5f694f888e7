import { askModel } from '../../src/agent/index.ts'
import type { BuiltRoute } from '../../src/models/index.ts'
import { TurnmillError } from '../../src/protocol/errors.ts'
import type { StreamPart } from '../../src/protocol/parts.ts'
import { NO_USAGE } from '../../src/protocol/usage.ts'
import type { ModelRequest } from '../../src/providers/contract.ts'

const USAGE = { ...NO_USAGE, inputTokens: 3 }

const BUILT = {
  route: {},
  facts: { modelConfig: { prices: { inputMicros: 2_000_000, outputMicros: null } } },
} as BuiltRoute

const REQUEST = { model: 'fake', reasoningEffort: null } as ModelRequest

const deadlines = { firstPartMs: 1000, reasoningFirstPartMs: 1000, silenceMs: 1000, attemptMs: 1000 }

/** Asks a model that streams these parts. */
const ask = (parts: readonly StreamPart[], signal = new AbortController().signal) =>
  askModel(
    {
      async *callModel() {
        yield* parts
      },
      deadlines,
    },
    BUILT,
    REQUEST,
    signal,
  )

test('the text of the answer is given with what it cost, its reasoning is left out', async () => {
  const answered = ask([
    { type: 'reasoning-start', id: 'r' },
    { type: 'reasoning-delta', id: 'r', text: 'hm' },
    { type: 'reasoning-end', id: 'r' },
    { type: 'text-start', id: 't' },
    { type: 'text-delta', id: 't', text: 'A ' },
    { type: 'text-delta', id: 't', text: 'title' },
    { type: 'text-end', id: 't' },
    { type: 'finish', reason: 'stop', usage: USAGE },
  ])
  await expect(answered).resolves.toEqual({
    text: 'A title',
    spent: { id: expect.any(String), usage: USAGE, costMicros: 6 },
    finishReason: 'stop',
  })
})

test('a failure carries its code, its wait, and what was spent all the same', async () => {
  const error = new TurnmillError('provider_overloaded', 'busy', { retryAfterMs: 7 })
  await expect(ask([{ type: 'error', error, usage: USAGE }])).rejects.toMatchObject({
    code: 'provider_overloaded',
    retryAfterMs: 7,
    spent: { usage: USAGE, costMicros: 6 },
  })
})

test('a stream without an ending is a failure, whatever its text', async () => {
  const cut = ask([
    { type: 'text-start', id: 't' },
    { type: 'text-delta', id: 't', text: 'half' },
  ])
  await expect(cut).rejects.toMatchObject({
    code: 'provider_stream_broken',
    spent: { usage: null, costMicros: null },
  })
})

test('an abort gives its own reason', async () => {
  const reason = new TurnmillError('key_revoked', 'revoked meanwhile')
  const aborted = new TurnmillError('worker_stopped', 'aborted')
  await expect(ask([{ type: 'error', error: aborted }], AbortSignal.abort(reason))).rejects.toMatchObject({
    code: 'key_revoked',
  })
})
