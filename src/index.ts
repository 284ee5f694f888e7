/**
 * The library: the parts from which a process of one's own is put together.
 *
 *     const services = await openServices(loadConfig(), createLogger({ level: 'info', role: 'mine' }))
 *     const worker = createTurnWorker(services)
 *     await worker.start()
 */
export { createApp } from './app.ts'
export { createAuxiliaryWorker } from './auxiliary-worker.ts'
export { ConfigError, loadConfig, type Config } from './config/index.ts'
export { migrate } from './db/migrate.ts'
export { createProducer, type Producer } from './producer.ts'
export { ERRORS, TurnmillError, type ErrorCode, type StoredError } from './protocol/errors.ts'
export type { MessagePart, ReasoningEffort, TextPart } from './protocol/messages.ts'
export { Secret } from './protocol/secret.ts'
export type { Usage } from './protocol/usage.ts'
export type { ChatView, MessageView, QueuedMessageView, RetryState, TurnView } from './protocol/views.ts'
export { openServices, type Services } from './services.ts'
export type { ChatEvent, PlacedEvent } from './streams/index.ts'
export {
  defineTool,
  toolOutcome,
  type Tool,
  type ToolContext,
  type ToolImage,
  type ToolOutcome,
  type ToolSpec,
} from './tools/index.ts'
export { createLogger, type Logger } from './telemetry/logger.ts'
export { createTurnWorker, type TurnWorker } from './turn-worker.ts'
export type { Worker } from './worker.ts'
