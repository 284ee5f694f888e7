import type { ModelMessage, ReasoningEffort } from '../protocol/messages.ts'
import type { StreamPart } from '../protocol/parts.ts'
import type { WireFormat } from '../protocol/routes.ts'
import type { ToolDefinition } from '../protocol/tools.ts'
import type { Secret } from '../protocol/secret.ts'
import type { Usage } from '../protocol/usage.ts'

/** How a model call reaches its upstream; made from a route, for one call. */
export interface ProviderConnection {
  /** The provider's name, for people. */
  provider: string
  /** Absolute URL without a trailing slash. Never dialled when `fetch` is the gateway's. */
  baseUrl: string
  /** What the SDK sends as credential: the real one on a direct route, a placeholder or BYOK on a gateway route. */
  credential: Secret
  fetch: typeof globalThis.fetch
  /**
   * What the gateway's books charge the call with, `null` for nothing: resolves once it is over and its answer was let go
   * of. Not on a direct route, which has no books.
   */
  charge?(): Promise<Usage | null>
}

export interface ModelRequest {
  /** The model's name at its provider. */
  model: string
  system: string | null
  messages: readonly ModelMessage[]
  /** What the model may ask for; empty where its answer is to be the last. Some ask all the same. */
  tools: readonly ToolDefinition[]
  maxOutputTokens: number | null
  temperature: number | null
  reasoningEffort: ReasoningEffort | null
}

export interface ModelCall {
  connection: ProviderConnection
  request: ModelRequest
  /** Aborting it closes the provider's socket at once and ends the stream without a `finish`. */
  signal: AbortSignal
}

/**
 * Streams one model call.
 *
 * Contract: never throws; the last part is always exactly one `finish` or `error`, nothing follows it. A `finish` is
 * given only after the wire format's own ending (`finish_reason` and `[DONE]`, `response.completed`, `message_stop`);
 * anything else that ends the stream is an `error` with code `provider_stream_broken`, an abort an `error` with code
 * `worker_stopped`. Every started block is ended before `finish`. Text is storable (no NUL, no lone surrogate). Either
 * ending holds what the call used, as far as it was reported, and estimated where it was not.
 */
export type StreamModel = (call: ModelCall) => AsyncIterable<StreamPart>

/** One adapter per wire format. */
export type ProviderAdapters = Readonly<Record<WireFormat, StreamModel>>
