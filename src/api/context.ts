import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import type { Chats } from '../chats/index.ts'
import type { Config } from '../config/index.ts'
import type { Gateway } from '../protocol/routes.ts'
import type { Encryption, ProviderFetch } from '../models/index.ts'
import type { Secret } from '../protocol/secret.ts'
import type { PartLog, WatchRegistry } from '../streams/index.ts'
import type { Logger } from '../telemetry/logger.ts'
import type { Metrics } from '../telemetry/metrics.ts'

/** What the routes stand on. It changes nothing: handlers do that through `effectsOf(request)`. */
export interface ApiContext {
  config: Config
  logger: Logger
  chats: Pick<Chats, 'get' | 'list' | 'messages' | 'turns' | 'queue' | 'changes' | 'isRewritten'>
  parts: PartLog
  watching: WatchRegistry
  encryption: Encryption
  gateway: Gateway
  providerFetch: ProviderFetch
  metrics: Metrics
  pepper: Secret
  /** Aborts when the API stops: open streams end. */
  stopping: AbortSignal
  /** The state of each thing we depend on: `null` where it answers, else why not. */
  checks: Readonly<Record<string, () => Promise<void>>>
}

export type ApiServer = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  ZodTypeProvider
>
