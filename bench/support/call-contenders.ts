import { fileURLToPath } from 'node:url'
import { createAuthoriser } from '../../src/gateway/authorise.ts'
import { createBooks, createBreakers, createGateway, createKeyHealth } from '../../src/gateway/index.ts'
import { connectRoute, createProviderFetch, createSendToProvider } from '../../src/models/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import type { Route } from '../../src/protocol/routes.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { createCaller, reach, type CallKind, type MakeCall } from './call-client.ts'
import { BookReader, MODEL, PROVIDER, PROVIDER_KEY, type CallStage } from './call-stage.ts'
import type { Cleanup } from './cleanup.ts'
import { nowMs } from './clock.ts'
import { startQueueRedis } from './ground.ts'
import { startNodeProcess, type NodeProcess } from './node-process.ts'
import { timeStatements, type RoundTrips } from './timed-database.ts'

/** In ms. */
export interface BookTimes {
  /** From the end of an answer until its call was settled. */
  settlements: readonly number[]
  roundTrips: RoundTrips
}

/** A way to call the provider. */
export interface CallContender {
  name: 'direct' | 'round trips' | 'in-process' | 'over HTTP' | 'Portkey'
  call: MakeCall
  /** Resolves when all calls so far are settled, which nobody waits for otherwise. */
  settled(): Promise<void>
  /** Where it keeps its books. */
  stage?: CallStage
  /** Its own process, where it has one. */
  process?: NodeProcess
  /** What was timed beside its calls since this was last asked. */
  takeTimes?: () => BookTimes
}

const nothingToSettle = async (): Promise<void> => undefined

/** The SDK and the provider, nothing between them. */
export const startDirect = (parts: number, providerUrl: string): CallContender => ({
  name: 'direct',
  call: createCaller(parts, reach(providerUrl, PROVIDER_KEY)),
  settled: nothingToSettle,
})

/** Books in this process, with a clock beside each statement and each settlement. */
function openBooks(stage: CallStage) {
  const { db, takeRoundTrips } = timeStatements(stage.db)
  let unsettled = 0
  let settlements: number[] = []
  let onSettled = Promise.withResolvers<void>()
  const books = createBooks(db)
  return {
    db,
    books: {
      ...books,
      /** Begins with the end of an answer, and is waited for by nobody. */
      settle: async (settlement: Parameters<typeof books.settle>[0]): Promise<void> => {
        const start = nowMs()
        await books.settle(settlement)
        settlements.push(nowMs() - start)
        unsettled--
        onSettled.resolve()
        onSettled = Promise.withResolvers()
      },
    },
    /** The same calls, counted: an SDK may let go of an answer before the gateway has read its end. */
    counted:
      (call: MakeCall): MakeCall =>
      (kind) => {
        unsettled++
        return call(kind)
      },
    settled: async (): Promise<void> => {
      while (unsettled > 0) await onSettled.promise
    },
    takeTimes: (): BookTimes => {
      const taken = { settlements, roundTrips: takeRoundTrips() }
      settlements = []
      return taken
    },
  }
}

const CALL_LIMIT_MS = 600_000

/** As a worker calls: the gateway in this process, through the connection of a route under a delegated key. */
export function startInProcess(parts: number, stage: CallStage): CallContender {
  const { db, books, counted, settled, takeTimes } = openBooks(stage)
  const metrics = createMetrics(async () => ({ pending: 0, running: 0, oldestWaitMs: 0 })).gateway
  const rules = { allowPrivate: true }
  const gateway = createGateway({
    db,
    encryption: stage.encryption,
    books,
    health: createKeyHealth(),
    breakers: createBreakers({ failures: 5, openMs: 30_000, onChange: metrics.onBreaker }),
    sendToProvider: createSendToProvider(rules),
    callLimitMs: CALL_LIMIT_MS,
    track: () => undefined,
    metrics,
    onUnsettled: (error) => console.error(error),
  })
  const connection = connectRoute(toRoute(stage), gateway, createProviderFetch(rules))
  return {
    name: 'in-process',
    call: counted(createCaller(parts, connection)),
    settled,
    stage,
    takeTimes,
  }
}

const attributionOf = ({ apiKeyId }: CallStage) =>
  ({ apiKeyId, chatId: null, turnId: null, purpose: 'chat' }) as const

const toRoute = (stage: CallStage): Route => ({
  kind: 'gateway',
  provider: { ...stage.provider, name: PROVIDER, type: 'openai', attribution: false },
  wireFormat: 'openai-chat',
  modelConfigId: stage.modelConfigId,
  model: MODEL,
  attribution: attributionOf(stage),
  place: null,
  delegatedKeyId: stage.apiKeyId,
  byok: null,
})

/**
 * No call, but what a call waits for in Postgres: the statements of the gateway, by its own functions, one after the
 * other and nothing between them. Settling is not waited for here either.
 */
export function startRoundTrips(parts: number, stage: CallStage): CallContender {
  const { db, books, counted, settled, takeTimes } = openBooks(stage)
  const { apiKeyId, modelConfigId, encryption } = stage
  const subject = { apiKeyId, provider: PROVIDER, model: MODEL, modelConfigId }
  const credential = { kind: 'central', hint: '…' } as const
  const authoriser = createAuthoriser(db, encryption)
  const open = async (kind: CallKind): Promise<string> => {
    const { version } = await authoriser.authorise(subject)
    const id = newId()
    const refusal = await books.open({
      id,
      ...{ subject, version, purpose: 'chat', chatId: null, turnId: null, place: null },
      ...{ endpoint: '/v1/chat/completions', client: null, streamed: kind === 'streamed', credential },
      ...{ worstCaseMicros: 41_428, limitMs: CALL_LIMIT_MS },
    })
    if (refusal !== null) throw new Error(`the call was refused: ${refusal}`)
    return id
  }
  const settle = (id: string): Promise<void> =>
    books.settle({
      ...{ id, credential, status: 200, errorCode: null, usage: usageOf(parts), costMicros: 230 },
      ...{ firstByteMs: 1, prompt: 'How does the mill turn?', tools: [] },
    })
  return {
    name: 'round trips',
    call: counted(async (kind) => {
      const start = nowMs()
      const id = await open(kind)
      const total = nowMs() - start
      void settle(id)
      return { first: total, total }
    }),
    settled,
    stage,
    takeTimes,
  }
}

const usageOf = (parts: number) => ({
  inputTokens: 12,
  outputTokens: parts,
  cacheReadTokens: 0,
  cacheWriteTokens: 0,
  reasoningTokens: 0,
  estimated: false,
})

/** As a client outside calls: the API process, with a Turnmill key. */
export async function startOverHttp(
  cleanup: Cleanup,
  parts: number,
  stage: CallStage,
  profileDir?: string,
): Promise<CallContender> {
  const redis = await startQueueRedis(cleanup)
  const process = await startNodeProcess(cleanup, {
    name: 'turnmill api',
    entry: fileURLToPath(new URL('../../src/main.ts', import.meta.url)),
    env: { ...stage.env, REDIS_URL: redis.url },
    readyMessage: 'listening',
    ...(profileDir === undefined ? {} : { profileDir }),
  })
  const [address] = process.ready.addresses as { port: number }[]
  const url = `http://127.0.0.1:${address?.port}/v1/gateway/${PROVIDER}/v1`
  const books = await BookReader.open(cleanup, stage)
  return {
    name: 'over HTTP',
    call: createCaller(parts, reach(url, stage.token.reveal())),
    settled: () => books.settled(),
    stage,
    process,
  }
}

/** Whether the peer is there: only this folder's own package.json names it. */
export function findPortkey(): boolean {
  try {
    import.meta.resolve(PORTKEY)
    return true
  } catch {
    return false
  }
}

const PORTKEY = '@portkey-ai/gateway/build/start-server.js'

/** Portkey's gateway in a process of its own: it forwards, and neither authorises, nor budgets, nor records. */
export async function startPortkey(
  cleanup: Cleanup,
  parts: number,
  providerUrl: string,
  profileDir?: string,
): Promise<CallContender> {
  const process = await startNodeProcess(cleanup, {
    name: 'portkey',
    entry: fileURLToPath(new URL('./portkey-server.ts', import.meta.url)),
    env: { NODE_ENV: 'production' },
    readyMessage: 'listening',
    ...(profileDir === undefined ? {} : { profileDir }),
  })
  const headers = { 'x-portkey-provider': 'openai', 'x-portkey-custom-host': providerUrl }
  return {
    name: 'Portkey',
    call: createCaller(
      parts,
      reach(`http://127.0.0.1:${String(process.ready.port)}/v1`, PROVIDER_KEY, headers),
    ),
    settled: nothingToSettle,
    process,
  }
}
