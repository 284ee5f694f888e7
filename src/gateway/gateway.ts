import { setTimeout as sleep } from 'node:timers/promises'
import type { Database } from '../db/index.ts'
import { createBodyGuard, guardHeaders, UnreadableAnswerError, type Encryption } from '../models/index.ts'
import { isTurnmillError, TurnmillError } from '../protocol/errors.ts'
import type { GatewayObserver } from '../protocol/gateway-observer.ts'
import type { Caller, Gateway, GatewayRequest, GatewayResponse } from '../protocol/routes.ts'
import type { Secret } from '../protocol/secret.ts'
import { createAuthoriser } from './authorise.ts'
import { readBody } from './body.ts'
import type { Books } from './books.ts'
import { settleCall, type CallEnd, type OpenCall } from './call.ts'
import { findTarget, type Endpoint } from './endpoints.ts'
import { headersFromProvider } from './headers.ts'
import { hideUsage } from './hide-usage.ts'
import { limitCall } from './limit-call.ts'
import { leaveUnsent } from './leave-unsent.ts'
import { createMeter } from './meter.ts'
import { openCall, type CallFacts, type OpeningEffects } from './open-call.ts'
import { refuse } from './refusals.ts'
import { codeOf, relayStream, relayWhole } from './relay.ts'
import { callUpstream, type Credential, type Upstream, type UpstreamEffects } from './upstream.ts'

/**
 * The AI gateway: authorises the key of a call, writes it down, puts the credential in, forwards, and settles.
 *
 * I6 every upstream request carries its caller's key ID; a call that is not authorised, or cannot be written down, makes none.
 * Central credentials are read here, go into the upstream request, and nowhere else.
 *
 * Round trips to the database: one that makes sure of the authorisation, writes down and reserves, and one to settle, after
 * the answer. What a call needs is read once before, and again when any of it has changed. Calls that begin or end at the
 * same moment share them.
 */
export interface GatewayOptions extends Omit<UpstreamEffects, 'onFailover'> {
  db: Database
  encryption: Encryption
  books: Books
  /** The longest a call may take, in ms. */
  callLimitMs: number
  metrics: GatewayObserver
  /** Told of each call that is about to be settled, so that the process can wait for it before it ends: its caller may not. */
  track(settlement: Promise<void>): void
  /** A call that could not be settled; the reconciler will. */
  onUnsettled(error: unknown): void
}

type Effects = GatewayOptions & OpeningEffects

export function createGateway(options: GatewayOptions): Gateway {
  const { db, encryption } = options
  const effects = {
    ...options,
    authoriser: createAuthoriser(db, encryption),
    wait: (ms: number) => sleep(ms, undefined, { ref: false }),
  }
  return async (request, caller) => {
    const path = pathOf(request.target)
    const target = findTarget(request)
    try {
      if (target === null) throw new TurnmillError('not_found', `there is no ${request.method} ${path}`)
      const made = makeCall(request, caller, target, effects)
      options.track(made.then(ignore, ignore))
      return await made
    } catch (error) {
      if (!isTurnmillError(error)) throw error
      options.metrics.onRefusal(error.code)
      const type = target === null ? null : effects.authoriser.typeOf(target.provider)
      return refuse(error, { path, headerNames: [...request.headers.keys()], type })
    }
  }
}

const ignore = (): void => undefined

const pathOf = (target: string): string => target.replace(/\?.*$/s, '')

interface Target {
  provider: string
  endpoint: Endpoint
}

async function makeCall(
  request: GatewayRequest,
  caller: Caller,
  { provider, endpoint }: Target,
  options: Effects,
): Promise<GatewayResponse> {
  const startedAt = performance.now()
  const body = readBody(request, endpoint)
  const subject = {
    apiKeyId: caller.apiKeyId,
    provider,
    model: body.asked?.model ?? '',
    modelConfigId: caller.kind === 'delegated' ? caller.modelConfigId : null,
  }
  const { call, facts } = await openCall({ request, caller, endpoint, body, subject, startedAt }, options)
  return forward(call, facts, options)
}

async function forward(call: OpenCall, facts: CallFacts, options: GatewayOptions): Promise<GatewayResponse> {
  const { request, body, sent, credential, credentials, labels, startedAt } = facts
  const { signal, release } = limitCall(request.signal, options.callLimitMs)
  const settle = (end: CallEnd): Promise<void> => {
    release()
    return settleCall(call, end)
  }
  options.metrics.onSent(labels, performance.now() - startedAt)
  const leaving = leaveUnsent(signal, (progress) =>
    callUpstream({ ...facts, ...progress, body: sent.bytes, signal }, credentials, {
      ...options,
      onFailover: options.metrics.onFailover,
    }),
  )
  const upstream = await leaving.upstream.catch(async (error: unknown) => {
    const status = error instanceof UnreadableAnswerError ? error.answered : null
    // Whoever hung up before the answer began may have to pay all the same, unless nothing was sent.
    const isTaken = status !== null || (leaving.isSent() && signal.aborted)
    await settle({
      status,
      errorCode: codeOf(error),
      credential,
      meter: null,
      firstByteAt: null,
      charged: isTaken && body.asked !== null,
    })
    throw error
  })
  // One that broke off is settled before its caller is told: that ends the call.
  return relay(upstream, facts, (end) =>
    options.track(end.errorCode === null ? afterwards(() => settle(end)) : settle(end)),
  )
}

/** The caller gets the end of its answer first. */
const afterwards = async (work: () => Promise<void>): Promise<void> => {
  await new Promise((resolve) => setImmediate(resolve))
  await work()
}

/** A provider may tell of a key that it has refused a moment ago. */
const triedOf = (credential: Credential, credentials: readonly Credential[]): Secret[] =>
  credentials
    .slice(0, credentials.indexOf(credential) + 1)
    .map(({ secret }) => secret)
    .filter((secret) => secret !== null)

/** @param onEnd called when all of the answer has passed, or no more of it will. */
async function relay(
  { answer, credential }: Upstream,
  { credentials, endpoint: { wireFormat }, sent }: CallFacts,
  onEnd: (end: CallEnd) => void,
): Promise<GatewayResponse> {
  const { status } = answer
  const contentType = (answer.headers.get('content-type') ?? '').toLowerCase()
  const tried = triedOf(credential, credentials)
  const headers = guardHeaders(headersFromProvider(answer.headers), tried)
  const meter = createMeter(wireFormat, contentType)
  const charged = status < 300 && wireFormat !== null
  let firstByteAt: number | null = null
  const passing = {
    guard: createBodyGuard(tried),
    hide: sent.usageAdded ? hideUsage() : null,
    onChunk: (chunk: Uint8Array) => {
      firstByteAt ??= performance.now()
      meter.read(chunk)
    },
    onEnd: (errorCode: string | null) => {
      meter.end()
      onEnd({ status, errorCode, credential, meter, firstByteAt, charged })
    },
  }
  const body = contentType.includes('text/event-stream')
    ? relayStream(answer.body, passing)
    : await relayWhole(answer.body, passing)
  return { status, headers, body }
}
