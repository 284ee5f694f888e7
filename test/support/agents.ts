/** Models that do what they are scripted to, told apart by what their chat was first told. */
import type {
  AnswerBehaviour,
  Behaviour,
  FakeUpstream,
  ScriptedCall,
  UpstreamRequest,
} from './fake-upstream.ts'

/** What a model sees of its own doings. */
export interface Seen {
  request: UpstreamRequest
  /** What its calls came to so far, oldest first: parsed where it is JSON. */
  results: unknown[]
  /** The agents that it has spawned. */
  agents: string[]
}

/** One answer of a model. */
export type Act = Behaviour | ((seen: Seen) => Behaviour)

/**
 * Each chat whose first message is named answers with one act after the other, and then as ever. To be used with the wire
 * format `openai-responses`, whose histories it reads.
 */
export function scriptAgents(upstream: FakeUpstream, agents: Readonly<Record<string, readonly Act[]>>): void {
  const taken = new Map<string, number>()
  upstream.script((request) => {
    const chat = String(request.headers['x-turnmill-chat-id'])
    const number = taken.get(chat) ?? 0
    taken.set(chat, number + 1)
    const act = agents[taskOf(request)]?.[number]
    if (act === undefined) return { type: 'answer' }
    return typeof act === 'function' ? act(see(request)) : act
  })
}

interface Item {
  type?: string
  role?: string
  content?: string | { text?: string }[]
  output?: string | { text?: string }[]
}

const itemsOf = ({ body }: UpstreamRequest): Item[] =>
  Array.isArray(body.input) ? (body.input as Item[]) : []

const textOf = (content: Item['content']): string =>
  typeof content === 'string' ? content : (content ?? []).map(({ text }) => text ?? '').join('')

/** What the chat was first told. */
export const taskOf = (request: UpstreamRequest): string =>
  textOf(itemsOf(request).find(({ role }) => role === 'user')?.content)

export function see(request: UpstreamRequest): Seen {
  const results = itemsOf(request)
    .filter(({ type }) => type === 'function_call_output')
    .map(({ output }) => parse(textOf(output)))
  const agents = results.flatMap((result) => {
    const { agentId } = (typeof result === 'object' && result !== null ? result : {}) as { agentId?: string }
    return agentId === undefined ? [] : [agentId]
  })
  return { request, results, agents }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

let calls = 0

export const call = (name: string, input: unknown = {}): ScriptedCall => ({
  id: `call_${++calls}`,
  name,
  args: [JSON.stringify(input)],
})

/** An answer that asks for tools. */
export const asks = (...toolCalls: ScriptedCall[]): AnswerBehaviour => ({ type: 'answer', toolCalls })

export const spawn = (task: string, fields: Record<string, unknown> = {}): ScriptedCall =>
  call('spawn_agent', { type: 'general', task, ...fields })

/** The names of the tools that a request offers. */
export const offered = ({ body }: UpstreamRequest): string[] =>
  ((body.tools ?? []) as { name?: string; type: string }[]).map(({ name, type }) => name ?? type)
