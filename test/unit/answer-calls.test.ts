import { answerCalls, type CallEffects } from '../../src/agent/answer-calls.ts'
import type { OpenCall } from '../../src/chats/index.ts'
import { TurnmillError, type ErrorCode } from '../../src/protocol/errors.ts'
import type { ToolCallState } from '../../src/protocol/views.ts'
import { defineTool, type Tool } from '../../src/tools/index.ts'
import { testClaim } from '../support/claims.ts'
import { hold, type Gate } from '../support/fake-upstream.ts'

const tool = (name: string, sequence?: string): Tool => ({
  ...defineTool({ name, description: name, inputSchema: { type: 'object' }, execute: () => null }),
  ...(sequence !== undefined && { sequence }),
})

/** A tool of the turn itself, which fails with the code that it is given. */
const failing: Tool = {
  ...tool('fail'),
  execute: ({ code }: { code: ErrorCode }) => Promise.reject(new TurnmillError(code, `it was ${code}`)),
}

const MEGABYTE = 1024 * 1024

const TOOLS = [tool('alone'), tool('look', 'display'), tool('click', 'display')]

const open = (toolCallId: string, toolName: string, fields: Partial<OpenCall> = {}): OpenCall => ({
  step: 1,
  call: { type: 'tool-call', toolCallId, toolName, input: {} },
  state: 'requested',
  result: { output: null, isError: false, images: [] },
  startedMs: null,
  ...fields,
})

/** Answers calls and tells what happened, in order; a tool whose call is gated waits. */
function answer(calls: readonly OpenCall[], gates: Record<string, Gate> = {}, offered = TOOLS) {
  const told: string[] = []
  const limits = new Set<number>()
  const effects: CallEffects = {
    startCalls: async (_, ids) => void told.push(`start ${ids.join(' ')}`),
    keepResults: async (_, results) =>
      void told.push(`keep ${results.map(({ toolCallId }) => toolCallId).join(' ')}`),
    commitResults: async (_claim, _step, results) =>
      void told.push(`commit ${results.map(({ toolCallId, state }) => `${toolCallId}:${state}`).join(' ')}`),
    requireAction: async (_, asked) =>
      void told.push(`ask ${asked.map(({ callId, state }) => `${callId}:${state}`).join(' ')}`),
    outputBytes: MEGABYTE,
    runTool: async (_tool, _input, { toolCallId, signal }, { outputBytes }) => {
      limits.add(outputBytes)
      told.push(`run ${toolCallId}`)
      signal.addEventListener('abort', () => told.push(`abort ${toolCallId}`))
      await gates[toolCallId]?.opened
      told.push(`end ${toolCallId}`)
      return { output: toolCallId, isError: false, images: [] }
    },
    storeImages: async () => [],
    listAgents: async () => [],
    wait: async () => false,
    waitingDeadlineMs: 1000,
  }
  const tools = {
    definitions: offered.map(({ definition }) => definition),
    find: (name: string) => {
      if (name === 'fail') return { kind: 'turn', tool: failing } as const
      const found = offered.find(({ definition }) => definition.name === name)
      return found && ({ kind: 'server', tool: found } as const)
    },
  }
  const { signal } = new AbortController()
  const done = answerCalls({ claim: testClaim(), step: 1, calls, tools, signal }, effects)
  return { told, done, limits }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

describe('the calls of a step', () => {
  test('run at once, and those of one sequence one after the other in the order asked (C1, C4)', async () => {
    const gates = { a: hold(), c: hold() }
    const calls = [open('a', 'look'), open('b', 'click'), open('c', 'alone'), open('d', 'look')]
    const { told, done } = answer(calls, gates)
    await settled()
    expect(told).toEqual(['start a c', 'run a', 'run c'])
    gates.a.release()
    await settled()
    expect(told.slice(3)).toEqual([
      'end a', 'keep a', 'start b', 'run b', 'end b', 'keep b', 'start d', 'run d', 'end d', 'keep d',
    ]) // prettier-ignore
    gates.c.release()
    expect(await done).toBe('answered')
    expect(told.slice(-3)).toEqual(['end c', 'keep c', 'commit a:done b:done c:done d:done'])
  })

  test.each([
    [1, MEGABYTE],
    [16, MEGABYTE],
    [128, MEGABYTE / 8],
  ])('say together what fits into a row: %i of them', async (count, bytes) => {
    const { done, limits } = answer(
      Array.from({ length: count }, (_, index) => open(`call-${index}`, 'alone')),
    )
    await done
    expect([...limits]).toEqual([bytes])
  })

  test('of a sequence that had not begun when their worker was lost run then (C2)', async () => {
    const states: ToolCallState[] = ['done', 'started', 'requested']
    const calls = states.map((state, index) => open(`call-${index}`, 'click', { state }))
    const { told, done } = answer(calls)
    await done
    expect(told).toEqual([
      'start call-2', 'run call-2', 'end call-2', 'keep call-2', 'commit call-0:done call-1:unknown call-2:done',
    ]) // prettier-ignore
  })

  const again: Tool = { ...tool('again'), idempotent: true, check: () => 'it takes no such input' }

  test.each<[string, string, Partial<OpenCall['call']>]>([
    ['a tool that is there no more', 'gone', {}],
    ['input that could not be read', 'alone', { inputError: 'no JSON' }],
    ['input that is refused by now', 'again', {}],
  ])('that had begun are not said to have failed for %s (C2)', async (_, name, fields) => {
    const begun = open('a', name, { state: 'started' })
    const { told, done } = answer([{ ...begun, call: { ...begun.call, ...fields } }], {}, [...TOOLS, again])
    expect(await done).toBe('answered')
    expect(told).toEqual(['commit a:unknown'])
  })

  test.each<[ToolCallState, string[]]>([
    ['requested', ['ask a:awaiting_approval']],
    ['approved', ['start a', 'run a', 'end a', 'commit a:done']],
    ['denied', ['commit a:denied']],
  ])('that a provider holds something against are asked about first (%s)', async (state, expected) => {
    const checked = open('a', 'click', { state })
    const call = { ...checked.call, providerData: { pendingSafetyChecks: [{ id: 'sc_1' }] } }
    const { told, done } = answer([{ ...checked, call }])
    expect(await done).toBe(state === 'requested' ? 'parked' : 'answered')
    expect(told).toEqual(expected)
  })

  test.each([[[]], [undefined], ['sc_1']])(
    'are not asked about where it holds %j against them',
    async (checks) => {
      const plain = open('a', 'click')
      const { told, done } = answer([
        { ...plain, call: { ...plain.call, providerData: { pendingSafetyChecks: checks } } },
      ])
      await done
      expect(told).toContain('run a')
    },
  )

  const failsWith = (code: ErrorCode): OpenCall => {
    const plain = open('a', 'fail')
    return { ...plain, call: { ...plain.call, input: { code } } }
  }

  test.each([
    'key_revoked',
    'missing_key',
    'gateway_unauthorized',
    'turn_fenced',
    'database_unavailable',
  ] as const)('of the turn’s own tools end the turn where they fail with %s', async (code) => {
    await expect(answer([failsWith(code)]).done).rejects.toMatchObject({ code })
  })

  test('end with one that ends the turn: the others are aborted and waited for, and no further one begins', async () => {
    const gates = { b: hold() }
    const { told, done } = answer([failsWith('turn_fenced'), open('b', 'look'), open('c', 'click')], gates)
    let over = false
    const end = done.catch((error: unknown) => error).finally(() => (over = true))
    await settled()
    expect(told).toEqual(['start a b', 'run b', 'abort b'])
    expect(over).toBe(false)
    gates.b.release()
    expect(await end).toMatchObject({ code: 'turn_fenced' })
    expect(told.slice(3)).toEqual(['end b', 'keep b'])
  })

  test.each(['not_found', 'budget_exceeded', 'provider_overloaded'] as const)(
    'of the turn’s own tools that fail with %s are told to the model',
    async (code) => {
      const { told, done } = answer([failsWith(code)])
      expect(await done).toBe('answered')
      expect(told).toEqual(['start a', 'commit a:done'])
    },
  )
})
