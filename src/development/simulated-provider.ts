import type { LLMock } from '@copilotkit/aimock'
import { TITLE_INSTRUCTIONS } from '../auxiliary/index.ts'

/** One request as the simulated provider saw it. Credentials are redacted by the mock itself. */
export interface SimulatedRequest {
  path: string
  headers: Readonly<Record<string, string>>
  /** The text of the last user message. */
  prompt: string
}

export interface SimulatedProvider {
  /** Speaks OpenAI's and Anthropic's APIs. */
  url: string
  requests(): SimulatedRequest[]
  stop(): Promise<void>
}

/** About how fast a model writes, so that there is something to watch. */
const PACE = { ttft: 200, tps: 40, jitter: 0.1 }

/**
 * Starts aimock, an independent mock of the provider APIs, as the provider where no key is set: a real HTTP server on
 * a free port of the loopback interface.
 *
 * @throws {Error} where the optional package is not installed.
 */
export async function startSimulatedProvider(): Promise<SimulatedProvider> {
  const { LLMock } = await importAimock()
  const mock = new LLMock({
    port: 0,
    host: '127.0.0.1',
    chunkSize: 6,
    logLevel: 'silent',
    journalMaxEntries: 1000,
  })
  mock.on({}, ({ messages }) => respond(messages), { streamingProfile: PACE })
  await mock.start()
  return {
    url: mock.url,
    requests: () => mock.getRequests().map(toSimulatedRequest),
    stop: () => mock.stop(),
  }
}

async function importAimock() {
  try {
    return await import('@copilotkit/aimock')
  } catch (error) {
    throw new Error(
      'the simulated provider is not installed; run npm ci with optional dependencies, or set OPENAI_API_KEY or ANTHROPIC_API_KEY and disable the models of the provider `simulated`',
      { cause: error },
    )
  }
}

type JournalEntry = ReturnType<LLMock['getRequests']>[number]
type ChatMessages = { role: string; content?: unknown }[]

const answer = (prompt: string): string =>
  `You wrote: “${prompt.slice(0, 200)}”. I am the simulated provider of Turnmill, so this is all I can say about it; ` +
  'set OPENAI_API_KEY or ANTHROPIC_API_KEY for `npm start` to talk to a real model.'

/** What a model might call a conversation that it is shown as `<user>…</user><assistant>…</assistant>`. */
const title = (shown: string): string => {
  const words =
    shown
      .replace(/^<user>/, '')
      .split('</user>')[0]
      ?.trim()
      .split(/\s+/) ?? []
  return `About “${words.slice(0, 5).join(' ')}${words.length > 5 ? ' …' : ''}”`
}

/** Without `usage` the mock reports zeros; under these two names it reports it in all wire formats. */
function respond(messages: ChatMessages) {
  const isTitle = messages.some((message) => textOf(message) === TITLE_INSTRUCTIONS)
  const content = isTitle ? title(textOfLast(messages)) : answer(textOfLast(messages))
  const asked = messages.map(textOf).join('\n')
  return { content, usage: { input_tokens: countTokens(asked), output_tokens: countTokens(content) } }
}

/** About four characters of English are a token. */
const countTokens = (text: string): number => Math.ceil(text.length / 4)

function toSimulatedRequest({ path, headers, body }: JournalEntry): SimulatedRequest {
  const messages =
    typeof body === 'object' && body !== null && 'messages' in body ? (body.messages as ChatMessages) : []
  return { path, headers, prompt: textOfLast(messages) }
}

const textOfLast = (messages: ChatMessages): string =>
  textOf(messages.findLast((message) => message.role === 'user'))

function textOf(message: ChatMessages[number] | undefined): string {
  const content = message?.content
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) return ''
  return content
    .map((part: unknown) =>
      typeof part === 'object' && part !== null && 'text' in part ? String(part.text) : '',
    )
    .join('')
}
