/** What a provider was told of tools, whatever its wire format. Source: the providers' API references of each. */
import type { UpstreamRequest } from './fake-upstream.ts'

export interface SentCall {
  id: string
  name: string
  input: unknown
}

export interface SentResult {
  id: string
  text: string
  /** The OpenAI formats do not say. */
  isError?: boolean
}

/** What a request says of calls, in its order. */
export interface SentTools {
  /** Names of what the model may ask for. */
  offered: string[]
  calls: SentCall[]
  results: SentResult[]
  /** Whether it ends with results: the model is to go on, rather than to answer something new. */
  endsWithResults: boolean
}

/** Any message or item of the three formats. */
interface Item {
  type?: string
  role?: string
  content?: string | readonly Block[] | null
  tool_calls?: readonly { id: string; function: { name: string; arguments: string } }[]
  tool_call_id?: string
  call_id?: string
  name?: string
  arguments?: string
  output?: string
}

interface Block {
  type: string
  text?: string
  id?: string
  name?: string
  input?: unknown
  tool_use_id?: string
  content?: string | readonly Block[]
  is_error?: boolean
}

interface OfferedTool {
  name?: string
  function?: { name: string }
}

export function toolsIn({ body }: UpstreamRequest): SentTools {
  const items = (body['input'] ?? body['messages'] ?? []) as readonly Item[]
  const offered = (body['tools'] ?? []) as readonly OfferedTool[]
  const mayCall = (body['tool_choice'] as { type?: string } | undefined)?.type !== 'none'
  const last = items.at(-1)
  return {
    offered: mayCall ? offered.map((tool) => tool.function?.name ?? tool.name ?? '') : [],
    calls: items.flatMap(callsIn),
    results: items.flatMap(resultsIn),
    endsWithResults: last !== undefined && isResult(last),
  }
}

const blocksOf = ({ content }: Item): readonly Block[] => (typeof content === 'string' ? [] : (content ?? []))

const textOf = (content: Item['content']): string =>
  typeof content === 'string' ? content : (content ?? []).map(({ text = '' }) => text).join('')

/** What the user says next stands behind the results, in Anthropic's format in one message with them. */
const isResult = (item: Item): boolean =>
  item.type === 'function_call_output' ||
  item.role === 'tool' ||
  blocksOf(item).at(-1)?.type === 'tool_result'

function callsIn(item: Item): SentCall[] {
  const { type, call_id: id, name, arguments: text = '' } = item
  if (type === 'function_call')
    return [{ id: id ?? '', name: name ?? '', input: JSON.parse(text) as unknown }]
  const own = (item.tool_calls ?? []).map((call) => ({
    id: call.id,
    name: call.function.name,
    input: JSON.parse(call.function.arguments) as unknown,
  }))
  const uses = blocksOf(item).filter((block) => block.type === 'tool_use')
  return [...own, ...uses.map((use) => ({ id: use.id ?? '', name: use.name ?? '', input: use.input }))]
}

function resultsIn(item: Item): SentResult[] {
  if (item.type === 'function_call_output') return [{ id: item.call_id ?? '', text: item.output ?? '' }]
  if (item.role === 'tool') return [{ id: item.tool_call_id ?? '', text: textOf(item.content) }]
  return blocksOf(item)
    .filter((block) => block.type === 'tool_result')
    .map(({ tool_use_id: id = '', content, is_error: isError = false }) => ({
      id,
      text: textOf(content),
      isError,
    }))
}
