/** Models that do what they are scripted to, told apart by what their chat was first told. */
import type { Purpose } from '../../src/protocol/routes.ts'
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

/** What is asked beside the steps of a turn. */
const BESIDE: ReadonlySet<string> = new Set<Purpose>(['title', 'quickgen', 'advisor', 'compaction'])

/** Each chat whose first message is named answers with one act after the other, and then as ever. */
export function scriptAgents(upstream: FakeUpstream, agents: Readonly<Record<string, readonly Act[]>>): void {
  const taken = new Map<string, number>()
  upstream.script((request) => {
    if (BESIDE.has(String(request.headers['x-turnmill-purpose']))) return { type: 'answer' }
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
  content?: string | Item[]
  output?: string | Item[]
  text?: string
}

/** What a request's history is made of: the items of OpenAI's Responses, the messages and blocks of Anthropic's. */
function itemsOf({ body }: UpstreamRequest): Item[] {
  if (Array.isArray(body.input)) return body.input as Item[]
  const messages = (body.messages ?? []) as Item[]
  return messages.flatMap((message) => [message, ...(Array.isArray(message.content) ? message.content : [])])
}

const textOf = (content: Item['content']): string =>
  typeof content === 'string' ? content : (content ?? []).map(({ text }) => text ?? '').join('')

/** What the chat was first told. */
export const taskOf = (request: UpstreamRequest): string =>
  textOf(itemsOf(request).find(({ role }) => role === 'user')?.content)

export function see(request: UpstreamRequest): Seen {
  const results = itemsOf(request)
    .filter(({ type }) => type === 'function_call_output' || type === 'tool_result')
    .map(({ output, content }) => parse(textOf(output ?? content)))
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
