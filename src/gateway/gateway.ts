import type { Database } from '../db/index.ts'
import { createBodyGuard, guardHeaders, type Encryption } from '../models/index.ts'
import { isTurnmillError, TurnmillError } from '../protocol/errors.ts'
import type { GatewayObserver } from '../protocol/gateway-observer.ts'
import type { Caller, Gateway } from '../protocol/routes.ts'
import type { Secret } from '../protocol/secret.ts'
import { createAuthoriser } from './authorise.ts'
import { readBody } from './body.ts'
import type { Books } from './books.ts'
import { settleCall, type OpenCall } from './call.ts'
import { findTarget, type Endpoint } from './endpoints.ts'
import { headersFromProvider } from './headers.ts'
import { hideUsage } from './hide-usage.ts'
import { createMeter } from './meter.ts'
import { openCall, type CallFacts, type OpeningEffects } from './open-call.ts'
import { refuse } from './refusals.ts'
import { codeOf, relayBody } from './relay.ts'
import { callUpstream, type Credential, type UpstreamEffects } from './upstream.ts'

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
  /** Told of each settlement that nobody waits for, so that the process can before it ends. */
  track(settlement: Promise<void>): void
  /** A call that could not be settled; the reconciler will. */
  onUnsettled(error: unknown): void
}

type Effects = GatewayOptions & OpeningEffects

export function createGateway(options: GatewayOptions): Gateway {
  const { db, encryption } = options
  const effects = {
    ...options,
    underWay: new Set<Request>(),
    authoriser: createAuthoriser(db, encryption),
  }
  return async (request, caller) => {
    const { pathname } = new URL(request.url)
    const target = findTarget(request)
    try {
      if (target === null) throw new TurnmillError('not_found', `there is no ${request.method} ${pathname}`)
      return await answer(request, caller, target, effects)
    } catch (error) {
      if (!isTurnmillError(error)) throw error
      options.metrics.onRefusal(error.code)
      const type = target === null ? null : effects.authoriser.typeOf(target.provider)
      return refuse(error, { path: pathname, headerNames: [...request.headers.keys()], type })
    }
  }
}

interface Target {
  provider: string
  endpoint: Endpoint
}

async function answer(
  request: Request,
  caller: Caller,
  { provider, endpoint }: Target,
  options: Effects,
): Promise<Response> {
  const startedAt = performance.now()
  const body = await readBody(request, endpoint)
  const subject = {
    apiKeyId: caller.apiKeyId,
    provider,
    model: body.asked?.model ?? '',
    modelConfigId: caller.kind === 'delegated' ? caller.modelConfigId : null,
  }
  const { call, facts } = await openCall({ request, caller, endpoint, body, subject, startedAt }, options)
  options.underWay.add(request)
  return forward(call, facts, options)
}

async function forward(call: OpenCall, facts: CallFacts, options: GatewayOptions): Promise<Response> {
  const { request, body, sent, endpoint, credential, credentials, labels, startedAt } = facts
  const signal = AbortSignal.any([request.signal, AbortSignal.timeout(options.callLimitMs)])
  const sending = { begun: false }
  const onSend = (): void => void (sending.begun = true)
  options.metrics.onSent(labels, performance.now() - startedAt)
  try {
    // Whoever has left by now has been sent nothing, and owes nothing.
    signal.throwIfAborted()
    const upstream = await callUpstream({ ...facts, body: sent.bytes, signal, onSend }, credentials, {
      ...options,
      onFailover: options.metrics.onFailover,
    })
    return relay(
      call,
      {
        ...upstream,
        tried: triedOf(upstream, credentials),
        signal,
        wireFormat: endpoint.wireFormat,
        usageAdded: sent.usageAdded,
      },
      options,
    )
  } catch (error) {
    // Whoever hung up before the answer began may have to pay all the same.
    const charged = sending.begun && signal.aborted && body.asked !== null
    const errorCode = codeOf(error)
    await settleCall(call, { status: null, errorCode, credential, meter: null, firstByteAt: null, charged })
    throw error
  }
}

/** The caller gets the end of its answer first. */
const afterwards = async (work: () => Promise<void>): Promise<void> => {
  await new Promise((resolve) => setImmediate(resolve))
  await work()
}

/** A provider may tell of a key that it has refused a moment ago. */
const triedOf = ({ credential }: { credential: Credential }, credentials: readonly Credential[]): Secret[] =>
  credentials
    .slice(0, credentials.indexOf(credential) + 1)
    .map(({ secret }) => secret)
    .filter((secret) => secret !== null)

interface Answer {
  response: Response
  credential: Credential
  /** The secrets of all credentials that were sent. */
  tried: readonly Secret[]
  signal: AbortSignal
  wireFormat: Endpoint['wireFormat']
  usageAdded: boolean
}

function relay(call: OpenCall, answer: Answer, { track }: GatewayOptions): Response {
  const { response, credential, tried, signal, wireFormat, usageAdded } = answer
  const meter = createMeter(wireFormat, (response.headers.get('content-type') ?? '').toLowerCase())
  let firstByteAt: number | null = null
  const body = relayBody(response.body, signal, {
    guard: createBodyGuard(tried),
    onChunk: (chunk) => {
      firstByteAt ??= performance.now()
      meter.read(chunk)
    },
    onEnd: (errorCode) => {
      meter.end()
      const { status, ok } = response
      const charged = ok && wireFormat !== null
      track(
        afterwards(() => settleCall(call, { status, errorCode, credential, meter, firstByteAt, charged })),
      )
    },
  })
  return new Response(usageAdded ? (body?.pipeThrough(hideUsage()) ?? null) : body, {
    status: response.status,
    headers: headersFromProvider(guardHeaders(response.headers, tried)),
  })
}
