import { createAuxiliaryRuns, type AuxiliaryRuns } from './auxiliary/index.ts'
import { createChats, type AdmittedTurn, type Chats, type PendingRun } from './chats/index.ts'
import { demandAll, type Config } from './config/index.ts'
import { openConnections, type Connections } from './connections.ts'
import { alone } from './db/index.ts'
import {
  createBooks,
  createBreakers,
  createGateway,
  createKeyHealth,
  createSettlements,
  hasBudgets,
  pruneRecords,
  settleOverdueCalls,
} from './gateway/index.ts'
import { pruneFiles } from './files/index.ts'
import { ensureBootstrapKey, pruneIdempotencyKeys } from './keys/index.ts'
import {
  createDebugRuns,
  createEncryption,
  createProviderFetch,
  createSendToProvider,
  type DebugRuns,
  type ProviderFetch,
  type SendToProvider,
  demandEncryptionKeys,
  type Encryption,
  pruneDebugRuns,
} from './models/index.ts'
import type { AuxiliaryQueue, JobTrigger, TurnQueue } from './queue/index.ts'
import { createReconciler, type Reconciler, type Repaired } from './reconcile/index.ts'
import type { Logger } from './telemetry/logger.ts'
import { createMetrics, type Metrics } from './telemetry/metrics.ts'
import type { Gateway } from './protocol/routes.ts'
import type { Secret } from './protocol/secret.ts'

/** What every process has, API or worker: the truth, the hint, the part log, and the timer that holds them together. */
export interface Services extends Omit<Connections, 'close'> {
  config: Config
  logger: Logger
  chats: Chats
  auxiliaryRuns: AuxiliaryRuns
  reconciler: Reconciler
  encryption: Encryption
  gateway: Gateway
  /** Reaches providers, as far as the rules of destinations let it. */
  providerFetch: ProviderFetch
  debugRuns: DebugRuns
  metrics: Metrics
  pepper: Secret
  close(): Promise<void>
}

/** How long a request waits for the queue after its commit, in ms; what is not said by then, the reconciler repeats. */
const ENQUEUE_LIMIT_MS = 100

/** How long a process that ends waits for its calls to be settled and recorded, in ms; Postgres may be away. */
const SETTLE_LIMIT_MS = 1000

/** What the services do to the outside world in the end, where somebody does it otherwise. */
export type ServiceEffects = Partial<Pick<Services, 'providerFetch'> & { sendToProvider: SendToProvider }>

/** Opens everything; the reconciler is not started yet. */
export async function openServices(
  config: Config,
  logger: Logger,
  effects: ServiceEffects = {},
): Promise<Services> {
  const { databaseUrl, apiKeyPepper, encryptionKeys } = demandAll(config, {
    databaseUrl: 'expected the URL of a Postgres database',
    apiKeyPepper: 'expected 32 random bytes in base64, such as `openssl rand -base64 32` prints',
    encryptionKeys: 'expected <id>:<32 random bytes in base64>, such as k1:`openssl rand -base64 32`',
  })
  const encryption = createEncryption(encryptionKeys, ({ place, keyId, error }) =>
    logger.error({ ...place, keyId, error }, 'a stored secret does not decrypt'),
  )
  const onError = (error: unknown): void => logger.warn({ error }, 'connection trouble')
  const connections = await openConnections(config, databaseUrl, onError)
  const { db, backend, queue, auxiliaryQueue, parts } = connections

  const metrics = createMetrics(() => chats.counts())
  const enqueue = (turns: readonly AdmittedTurn[], trigger?: JobTrigger): Promise<void> =>
    enqueueTurns(queue, turns, logger, trigger)
  const enqueueAuxiliary = (runs: readonly PendingRun[]): Promise<void> =>
    enqueueRuns(auxiliaryQueue, runs, logger)
  const onChanged = (chatId: string): void => parts.announce(chatId)
  const chats = createChats({
    db,
    limits: config,
    leaseMs: config.leaseMs,
    auxiliary: { titles: config.autoTitles, labels: config.statusLabels },
    onAdmitted: enqueue,
    onRuns: enqueueAuxiliary,
    onChanged,
    onStop: (turnId) => parts.poke(turnId),
    onFenced: (transition) => metrics.fencedWrites.inc({ transition }),
  })
  const auxiliaryRuns = createAuxiliaryRuns({
    db,
    leaseMs: config.leaseMs,
    onPending: enqueueAuxiliary,
    onChanged,
  })
  const rules = { allowPrivate: config.allowPrivateProviders ?? false }
  const providerFetch = effects.providerFetch ?? createProviderFetch(rules)
  const debugRuns = createDebugRuns({
    db,
    retentionHours: config.debugRetentionHours,
    onError: (error) => logger.warn({ error }, 'a model call was not recorded'),
  })
  const settlements = createSettlements()
  const gateway = createGateway({
    db,
    encryption,
    books: createBooks(db),
    health: createKeyHealth((keyId, status) =>
      logger.warn({ providerKeyId: keyId, status }, 'a provider refused a central key, which rests now'),
    ),
    breakers: createBreakers({
      failures: config.breakerFailures,
      openMs: config.breakerOpenMs,
      onChange: metrics.gateway.onBreaker,
    }),
    sendToProvider: effects.sendToProvider ?? createSendToProvider(rules),
    callLimitMs: config.attemptTimeoutMs,
    track: settlements.track,
    metrics: metrics.gateway,
    onUnsettled: (error) => logger.error({ error }, 'a call was not settled; the reconciler will'),
  })
  const reconciler = createReconciler({
    chats,
    queue,
    enqueue: (turns) => enqueue(turns, 'reconcile'),
    auxiliary: { runs: auxiliaryRuns, queue: auxiliaryQueue, enqueue: enqueueAuxiliary },
    alone: (work) => alone(db, 'reconcile', work),
    settleCalls: (limit) => settleOverdueCalls(db, limit),
    prune: async (limit) => {
      await pruneIdempotencyKeys(db, limit)
      await chats.pruneQueue(limit)
      await pruneFiles(db, limit)
      await pruneRecords(db, config, limit)
      await auxiliaryRuns.prune(limit)
      await pruneDebugRuns(db, limit)
    },
    periodMs: config.reconcilerPeriodMs,
    lostAfterMs: config.lostAfterMs,
    onPass: (repaired) => reportPass(repaired, metrics, logger),
    onError: (error) => logger.warn({ error }, 'the reconciler could not finish its pass'),
  })
  backend.onReturn(() => void reconciler.catchUp())

  return {
    config, logger, db, backend, queue, auxiliaryQueue, parts, chats, auxiliaryRuns, debugRuns, reconciler, encryption, gateway,
    providerFetch, metrics, pepper: apiKeyPepper,
    close: async () => {
      await reconciler.stop()
      await Promise.all([settlements.idle(SETTLE_LIMIT_MS), debugRuns.idle(SETTLE_LIMIT_MS)])
      await connections.close()
    },
  } // prettier-ignore
}

/** Tells of a pass that put something right. */
function reportPass(repaired: Repaired, metrics: Metrics, logger: Logger): void {
  const found = Object.entries({ ...repaired }).filter(([, count]) => count > 0)
  for (const [what, count] of found) metrics.reconciled.inc({ what }, count)
  if (repaired.repaired > 0) logger.warn(repaired, 'queues waited behind nothing')
  else if (found.length > 0) logger.info(repaired, 'reconciled')
}

const enqueueTurns = (
  queue: TurnQueue,
  turns: readonly AdmittedTurn[],
  logger: Logger,
  trigger?: JobTrigger,
): Promise<void> =>
  enqueueSoon(
    turns.map((turn) => enqueueTurn(queue, turn, trigger)),
    (error) => logger.warn({ error, turns: turns.length }, 'turns were not enqueued; the reconciler will'),
  )

const enqueueRuns = (queue: AuxiliaryQueue, runs: readonly PendingRun[], logger: Logger): Promise<void> =>
  enqueueSoon(
    runs.map(({ jobId, ...run }) => queue.enqueue(jobId, { version: 1, ...run })),
    (error) =>
      logger.warn({ error, runs: runs.length }, 'auxiliary runs were not enqueued; the reconciler will'),
  )

/** The fast path after a commit. Never throws: the row is the outbox, and the reconciler reads it. */
async function enqueueSoon(
  added: readonly Promise<void>[],
  onError: (error: unknown) => void,
): Promise<void> {
  if (added.length === 0) return
  const enqueued = Promise.all(added).then(() => undefined, onError)
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<void>((resolve) => (timer = setTimeout(resolve, ENQUEUE_LIMIT_MS)))
  await Promise.race([enqueued, limit])
  clearTimeout(timer)
}

const enqueueTurn = (queue: TurnQueue, turn: AdmittedTurn, trigger?: JobTrigger): Promise<void> =>
  queue.enqueue(
    turn.jobId,
    {
      version: 1,
      turnId: turn.turnId,
      chatId: turn.chatId,
      apiKeyId: turn.apiKeyId,
      trigger: trigger ?? turn.trigger,
    },
    { ahead: turn.begun },
  )

/**
 * What can only be looked at in a database that is up to date: to be called after `migrate`, before any work.
 *
 * @throws {Error} naming what does not fit, and what to do.
 */
export async function demandFitting({
  config,
  db,
  encryption,
}: Pick<Services, 'config' | 'db' | 'encryption'>): Promise<void> {
  await demandEncryptionKeys(db, encryption)
  if (!config.gatewayRouting && (await hasBudgets(db)))
    throw new Error(
      'there are budgets, and direct routing cannot hold them: delete them, or set TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED=true',
    )
}

/** The first admin key of a process that serves the API. @throws {Error} where it is not the one that is stored. */
export const seeToBootstrapKey = (
  { db, pepper, logger }: Pick<Services, 'db' | 'pepper' | 'logger'>,
  token: Secret,
): Promise<string> =>
  ensureBootstrapKey(db, pepper, token, (apiKeyIds) =>
    logger.warn(
      { apiKeyIds },
      'there are other bootstrap keys, each of an admin of its own, and they stay valid: revoke those that are to be replaced',
    ),
  )
