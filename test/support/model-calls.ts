/** Making model calls in tests, and looking at what came of them. */
import type { ToolCallPart } from '../../src/protocol/messages.ts'
import type { EndPart, StreamPart } from '../../src/protocol/parts.ts'
import type { ComputerTool, FunctionTool } from '../../src/protocol/tools.ts'
import { Secret } from '../../src/protocol/secret.ts'
import type {
  ModelCall,
  ModelRequest,
  ProviderConnection,
  StreamModel,
} from '../../src/providers/contract.ts'

export const TEST_CREDENTIAL = 'sk-test-credential-0001'

export const userText = (text: string): ModelRequest['messages'][number] => ({
  role: 'user',
  parts: [{ type: 'text', text }],
})

export const modelRequest = (fields: Partial<ModelRequest> = {}): ModelRequest => ({
  model: 'test-model',
  system: null,
  messages: [userText('hello')],
  tools: [],
  maxOutputTokens: null,
  temperature: null,
  reasoningEffort: null,
  ...fields,
})

export const functionTool = (name: string, fields: Partial<FunctionTool> = {}): FunctionTool => ({
  kind: 'function',
  name,
  description: `The tool ${name}.`,
  inputSchema: { type: 'object', properties: { city: { type: 'string' } } },
  ...fields,
})

export const COMPUTER: ComputerTool = { kind: 'computer', name: 'computer', width: 1280, height: 800 }

export interface CallFields {
  baseUrl: string
  credential?: string
  fetch?: ProviderConnection['fetch']
  request?: Partial<ModelRequest>
  signal?: AbortSignal
}

export const modelCall = (fields: CallFields): ModelCall => ({
  connection: {
    provider: 'mill',
    baseUrl: fields.baseUrl,
    credential: new Secret(fields.credential ?? TEST_CREDENTIAL),
    fetch: fields.fetch ?? globalThis.fetch,
  },
  request: modelRequest(fields.request),
  signal: fields.signal ?? new AbortController().signal,
})

export interface CollectedCall {
  parts: StreamPart[]
  text: string
  reasoning: string
  calls: CollectedToolCall[]
  end: EndPart
}

/** A tool call as it will be committed, with the text that was streamed of its arguments. */
export type CollectedToolCall = ToolCallPart & { text: string }

/** Runs a call to its end, checking on the way what the contract says of every stream. */
export async function collect(stream: AsyncIterable<StreamPart>): Promise<CollectedCall> {
  const parts: StreamPart[] = []
  for await (const part of stream) parts.push(part)
  const end = endOf(parts)
  checkBlocks(parts, end)
  return {
    parts,
    text: joinDeltas(parts, 'text-delta'),
    reasoning: joinDeltas(parts, 'reasoning-delta'),
    calls: parts.flatMap((part) => (part.type === 'tool-input-start' ? collectCall(part, parts) : [])),
    end,
  }
}

export const run = (adapter: StreamModel, fields: CallFields): Promise<CollectedCall> =>
  collect(adapter(modelCall(fields)))

/** The error a call ended with. */
export async function runToError(adapter: StreamModel, fields: CallFields) {
  const { end } = await run(adapter, fields)
  if (end.type !== 'error') throw new Error(`the call ended with ${JSON.stringify(end)}, expected an error`)
  return end.error
}

/** The finish a call ended with. */
export async function runToFinish(adapter: StreamModel, fields: CallFields) {
  const { end } = await run(adapter, fields)
  if (end.type !== 'finish') throw end.error
  return end
}

const isEnd = (part: StreamPart): part is EndPart => part.type === 'finish' || part.type === 'error'

function endOf(parts: readonly StreamPart[]): EndPart {
  const last = parts.at(-1)
  if (last === undefined || !isEnd(last) || parts.filter(isEnd).length !== 1)
    throw new Error(`a stream ends with exactly one finish or error, got ${describe(parts)}`)
  return last
}

/** Blocks start once, end once, hold no empty delta, and none is open at a finish. */
function checkBlocks(parts: readonly StreamPart[], end: EndPart): void {
  const open = new Set<string>()
  const seen = new Set<string>()
  for (const part of parts) {
    if (!('id' in part)) continue
    const isStart = part.type.endsWith('-start')
    if (isStart ? seen.has(part.id) : !open.has(part.id)) throw new Error(`${part.type} out of order`)
    if ('text' in part && part.text === '') throw new Error(`${part.type} is empty`)
    seen.add(part.id)
    if (isStart) open.add(part.id)
    if (part.type.endsWith('-end')) open.delete(part.id)
  }
  if (end.type === 'finish' && open.size > 0) throw new Error(`blocks left open: ${describe(parts)}`)
}

type CallStart = Extract<StreamPart, { type: 'tool-input-start' }>

/** Nothing for a call that has no end. */
function collectCall(
  { id, toolCallId, toolName }: CallStart,
  parts: readonly StreamPart[],
): CollectedToolCall[] {
  const own = parts.filter((part) => 'id' in part && part.id === id)
  const text = own.map((part) => (part.type === 'tool-input-delta' ? part.text : '')).join('')
  return own.flatMap((part): CollectedToolCall[] => {
    if (part.type !== 'tool-input-end') return []
    const { type: _type, id: _id, ...rest } = part
    return [{ type: 'tool-call', toolCallId, toolName, text, ...rest }]
  })
}

const joinDeltas = (parts: readonly StreamPart[], type: 'text-delta' | 'reasoning-delta'): string =>
  parts.map((part) => (part.type === type ? part.text : '')).join('')

const describe = (parts: readonly StreamPart[]): string => parts.map(({ type }) => type).join(' ')
