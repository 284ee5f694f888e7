import type { WireFormat } from '../protocol/routes.ts'
import type { ProviderAdapters, StreamModel } from './contract.ts'

/** SDKs are most of what a process would load: one that calls no model has none of them. */
const LOAD: Readonly<Record<WireFormat, () => Promise<StreamModel>>> = {
  'openai-responses': async () => (await import('./openai-responses.ts')).streamOpenAiResponses,
  'openai-chat': async () => (await import('./openai-chat.ts')).streamOpenAiChat,
  'anthropic-messages': async () => (await import('./anthropic-messages.ts')).streamAnthropicMessages,
}

/** The adapter of every wire format, loaded by its first call where `loadAdapters` has not. */
export const providerAdapters: ProviderAdapters = {
  'openai-responses': byFirstCall(LOAD['openai-responses']),
  'openai-chat': byFirstCall(LOAD['openai-chat']),
  'anthropic-messages': byFirstCall(LOAD['anthropic-messages']),
}

/** Loads all adapters, for a process that is about to call models: takes some 300 ms, which the first turns would wait for. */
export async function loadAdapters(): Promise<void> {
  await Promise.all(Object.values(LOAD).map((load) => load()))
}

function byFirstCall(load: () => Promise<StreamModel>): StreamModel {
  let adapter: StreamModel | null = null
  return (call) => adapter?.(call) ?? first(call)

  async function* first(...[call]: Parameters<StreamModel>): ReturnType<StreamModel> {
    adapter ??= await load()
    yield* adapter(call)
  }
}
