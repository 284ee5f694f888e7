import { z } from 'zod'
import type { Chats } from '../../src/chats/index.ts'
import type { ToolCallPart, ToolResultPart } from '../../src/protocol/messages.ts'
import { defineTool, toolOutcome, type Tool, type ToolContext } from '../../src/tools/index.ts'
import { hold, type Gate, type ScriptedCall } from './fake-upstream.ts'
import { PNG } from './tools.ts'
import type { TestUser, Turnmill } from './turnmill.ts'

type Created = Awaited<ReturnType<TestUser['client']['create']>>

/** A call that a tool of the bench was given. */
export interface BenchCall {
  tool: string
  id: string
  signal: AbortSignal
}

/** Tools that note their calls, and that a test can hold. */
export interface ToolBench {
  tools: Tool[]
  /** In the order in which they began. */
  calls: BenchCall[]
  /** Holds calls of the tools `held` and `lookup`. */
  gate: Gate
  /** Resolves with call number `n`, from 1. */
  waitForCall(n: number): Promise<BenchCall>
  /** How often a tool has begun. */
  count(tool: string): number
  reset(): void
}

const anyInput = z.object({}).loose()

export function createToolBench(): ToolBench {
  const calls: BenchCall[] = []
  let news = Promise.withResolvers<undefined>()
  const note = (tool: string, { toolCallId: id, signal }: ToolContext): void => {
    calls.push({ tool, id, signal })
    news.resolve(undefined)
    news = Promise.withResolvers<undefined>()
  }
  const bench: ToolBench = {
    calls,
    gate: hold(),
    tools: [
      defineTool({
        name: 'echo',
        description: 'Says what it is told.',
        inputSchema: z.object({ text: z.string() }),
        readOnly: true,
        execute: ({ text }, context) => {
          note('echo', context)
          return { said: text }
        },
      }),
      // What is not idempotent runs once at most.
      defineTool({
        name: 'charge',
        description: 'Takes money.',
        inputSchema: anyInput,
        execute: (_, context) => {
          note('charge', context)
          return 'charged'
        },
      }),
      ...(['held', 'lookup'] as const).map((name) =>
        defineTool({
          name,
          description: 'Waits for the test.',
          inputSchema: anyInput,
          idempotent: name === 'lookup',
          execute: async (_, context) => {
            note(name, context)
            await bench.gate.opened
            return 'let go'
          },
        }),
      ),
      defineTool({
        name: 'picture',
        description: 'Shows a picture.',
        inputSchema: anyInput,
        readOnly: true,
        execute: (_, context) => {
          note('picture', context)
          return toolOutcome({ output: 'a picture', images: [{ mediaType: 'image/png', bytes: PNG }] })
        },
      }),
      defineTool({
        name: 'danger',
        description: 'Is asked about first.',
        inputSchema: anyInput,
        needsApproval: true,
        execute: (_, context) => {
          note('danger', context)
          return 'done'
        },
      }),
    ],
    waitForCall: async (n) => {
      for (;;) {
        const call = calls[n - 1]
        if (call !== undefined) return call
        await news.promise
      }
    },
    count: (tool) => calls.filter((call) => call.tool === tool).length,
    reset: () => {
      calls.length = 0
      bench.gate.release()
      bench.gate = hold()
    },
  }
  return bench
}

/** A call with whole arguments, as a provider streams it. */
export const call = (id: string, name: string, input: object = {}): ScriptedCall => {
  const text = JSON.stringify(input)
  const half = Math.ceil(text.length / 2)
  return { id, name, args: [text.slice(0, half), text.slice(half)] }
}

/** What the ledger says of a turn, in the order of the calls. */
export const ledgerOf = async (turnmill: Turnmill, turnId: string): Promise<object[]> => {
  const rows = await turnmill.services.db.prisma.toolCall.findMany({
    where: { turnId },
    orderBy: [{ step: 'asc' }, { id: 'asc' }],
  })
  return rows.map(({ step, callId, state, output, isError }) => ({ step, callId, state, output, isError }))
}

/** Does something ahead of the next call of a method, once. */
export function ahead(
  chats: Chats,
  name: 'commitStep' | 'startCalls' | 'commitResults' | 'finish',
  work: () => Promise<unknown>,
): void {
  const method = chats[name] as (...values: unknown[]) => Promise<void>
  chats[name] = async (...values: unknown[]) => {
    chats[name] = method
    await work()
    return method(...values)
  }
}

/** Has a user say «go», and does something ahead of the next call of a method, however soon the turn comes to it. */
export async function goAndAhead(
  { services }: Turnmill,
  user: TestUser,
  name: Parameters<typeof ahead>[1],
  work: (created: Created) => Promise<unknown>,
): Promise<Created> {
  const created = Promise.withResolvers<Created>()
  ahead(services.chats, name, async () => work(await created.promise))
  created.resolve(await user.client.create('go'))
  return created.promise
}

export const toolCall = (toolCallId: string, toolName: string, input: unknown = {}): ToolCallPart => ({
  type: 'tool-call',
  toolCallId,
  toolName,
  input,
})

export const toolResult = (
  toolCallId: string,
  toolName: string,
  output: unknown,
  isError = false,
): ToolResultPart => ({ type: 'tool-result', toolCallId, toolName, output, isError })
