import type { Database } from '../db/index.ts'
import { createBodyGuard, guardHeaders, type Encryption } from '../models/index.ts'
import { isTurnmillError, TurnmillError } from '../protocol/errors.ts'
import type { Caller, Gateway } from '../protocol/routes.ts'
import { createAuthoriser, type Authorisation, type Authoriser, type CallSubject, type GatewayProvider } from './authorise.ts' // prettier-ignore
import { prepareBody, readBody, type CallBody, type SentBody } from './body.ts'
import type { Books, NewInterception, Refusal } from './books.ts'
import { settleCall, type OpenCall } from './call.ts'
import { findTarget, type Endpoint } from './endpoints.ts'
import { headersFromProvider } from './headers.ts'
import { hideUsage } from './hide-usage.ts'
import { createMeter } from './meter.ts'
import { refuse } from './refusals.ts'
import { codeOf, relayBody } from './relay.ts'
import { callUpstream, chooseCredentials, type Credential, type UpstreamEffects } from './upstream.ts'
import type { Secret } from '../protocol/secret.ts'
import type { CallLabels, GatewayObserver } from '../protocol/gateway-observer.ts'
import { inputBound, outputBound, worstCaseMicros } from './worst-case.ts'

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

/**
 * Calls under way. An abort reaches a request's signal only as long as something refers to the request itself: the
 * platform has one signal follow another by a weak reference.
 */
type UnderWay = Set<Request>

interface Effects extends GatewayOptions {
  underWay: UnderWay
  authoriser: Authoriser
}

export function createGateway(options: GatewayOptions): Gateway {
  const { db, encryption } = options
  const effects = {
    ...options,
    underWay: new Set<Request>(),
    authoriser: createAuthoriser(db, encryption),
  }
  return async (request, caller) => {
    const { pathname } = new URL(request.url)
    try {
      const target = findTarget(request)
      if (target === null) throw new TurnmillError('not_found', `there is no ${request.method} ${pathname}`)
      return await answer(request, caller, target, effects)
    } catch (error) {
      if (!isTurnmillError(error)) throw error
      options.metrics.onRefusal(error.code)
      return refuse(error, pathname)
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
  const { call, facts } = await open({ request, caller, endpoint, body, subject, startedAt }, options)
  options.underWay.add(request)
  return forward(call, facts, options)
}

/** How often a call is looked up anew because what it goes by was changed meanwhile. */
const LOOKS = 5

/** @throws {TurnmillError} why the call may not be made. */
async function open(asking: Asking, options: Effects): Promise<{ call: OpenCall; facts: CallFacts }> {
  const { subject } = asking
  for (let look = 1; ; look++) {
    const facts = await findFacts(asking, look > 1, options)
    const opened = await options.books.open(toInterception(facts, options))
    if ('id' in opened) return { call: toOpenCall(opened.id, facts, options), facts }
    if (opened.refusal !== 'stale' || look === LOOKS) throw refusedByBooks(opened.refusal, subject)
  }
}

/** What is remembered refuses nothing: it may have changed. @throws {TurnmillError} */
async function findFacts(asking: Asking, fresh: boolean, options: Effects): Promise<CallFacts> {
  const authorised = await options.authoriser.authorise(asking.subject, fresh)
  try {
    return toFacts(asking, authorised, options)
  } catch (error) {
    if (fresh) throw error
    return findFacts(asking, true, options)
  }
}

/** What is known of a call by itself. */
interface Asking {
  request: Request
  caller: Caller
  endpoint: Endpoint
  body: CallBody
  subject: CallSubject
  /** By this process's monotonic clock. */
  startedAt: number
}

/** @throws {TurnmillError} */
function toFacts(asking: Asking, authorised: Authorisation, { health }: Effects): CallFacts {
  const { request, caller, endpoint, body, subject } = asking
  const provider = demandAuthorised(authorised, subject.provider, endpoint)
  const credentials = chooseCredentials(request, caller, provider, health)
  const [credential] = credentials
  if (credential === undefined)
    throw new TurnmillError('provider_auth_failed', `provider ${provider.name} has no credential`)
  const limit = authorised.budgeted && body.asked !== null ? outputBound(body.asked, authorised.model) : null
  const labels = { provider: provider.name, model: authorised.model === null ? 'other' : subject.model }
  const sent = prepareBody(body, endpoint, provider.type, limit)
  return { ...asking, authorised, provider, credential, credentials, labels, sent }
}

/** What is known of it once its key and its provider were looked up. */
interface CallFacts extends Asking {
  sent: SentBody
  authorised: Authorisation
  provider: GatewayProvider
  /** In the order in which they are tried; the first one is `credential`. */
  credentials: readonly Credential[]
  credential: Credential
  labels: CallLabels
}

/** One answer for every reason why a key cannot be used. @throws {TurnmillError} */
function demandAuthorised(
  { userId, provider }: Authorisation,
  name: string,
  endpoint: Endpoint,
): GatewayProvider {
  if (userId === null) throw unauthorised()
  if (provider === null) throw new TurnmillError('provider_missing', `provider ${name} does not exist`)
  if (!provider.enabled) throw new TurnmillError('provider_disabled', `provider ${name} is disabled`)
  if (!endpoint.types.includes(provider.type))
    throw new TurnmillError('not_found', `provider ${name} has no ${endpoint.path}`)
  return provider
}

const unauthorised = (): TurnmillError =>
  new TurnmillError('gateway_unauthorized', 'the API key of this call cannot be used')

/** The gateway has written a limit into the body where a budget applies. */
const boundedOutput = ({ body: { asked }, authorised }: CallFacts): number | null =>
  asked === null || (asked.outputLimit === null && !authorised.budgeted)
    ? null
    : asked.answers * outputBound(asked, authorised.model)

const boundOf = ({ body, sent, authorised }: CallFacts): number | null =>
  body.asked === null ? 0 : worstCaseMicros(body.asked, sent.bytes?.byteLength ?? 0, authorised.model)

function toInterception(facts: CallFacts, { callLimitMs }: GatewayOptions): NewInterception {
  const { caller, endpoint, body, authorised, subject, credential } = facts
  const turn = caller.kind === 'delegated' ? caller : null
  return {
    subject,
    version: authorised.version,
    purpose: turn?.attribution.purpose ?? 'external',
    chatId: turn?.attribution.chatId ?? null,
    turnId: turn?.attribution.turnId ?? null,
    place: turn?.place ?? null,
    endpoint: endpoint.path,
    streamed: body.asked?.streamed ?? false,
    client: caller.kind === 'key' ? caller.client : null,
    credential,
    worstCaseMicros: boundOf(facts),
    limitMs: callLimitMs + SETTLE_MS,
  }
}

/** How long a call that is over may take to be settled, in ms. */
const SETTLE_MS = 60_000

function toOpenCall(
  id: string,
  facts: CallFacts,
  { books, metrics, underWay, onUnsettled }: Effects,
): OpenCall {
  const { request, body, sent, authorised, labels, startedAt } = facts
  const { asked } = body
  return {
    id,
    prompt: asked?.prompt ?? null,
    prices: authorised.model?.prices ?? null,
    inputBound: asked === null ? 0 : inputBound(asked, sent.bytes?.byteLength ?? 0, authorised.model),
    outputBound: boundedOutput(facts),
    startedAt,
    books,
    onEnded: (observation) => {
      underWay.delete(request)
      metrics.onCall({ ...labels, ...observation })
    },
    onUnsettled,
  }
}

function refusedByBooks(refusal: Refusal, { provider, model }: CallSubject): TurnmillError {
  const call = `a call of model ${model} of provider ${provider}`
  switch (refusal) {
    case 'unauthorised':
      return unauthorised()
    case 'stale':
      return new TurnmillError('gateway_unavailable', `what ${call} needs was changed again and again`)
    case 'model_unpriced':
      return new TurnmillError(refusal, `${call} falls under a budget, and the model has no price`)
    case 'budget_exceeded':
      return new TurnmillError(refusal, `a budget does not cover the worst case of ${call}`)
    case 'budget_busy':
      return new TurnmillError(refusal, `calls under way leave too little of a budget for ${call}`, {
        retryAfterMs: BUSY_MS,
      })
  }
}

const BUSY_MS = 1000

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
