import { isTurnmillError, TurnmillError } from '../protocol/errors.ts'
import type { CallLabels, GatewayObserver } from '../protocol/gateway-observer.ts'
import { newId } from '../protocol/ids.ts'
import type { Caller, GatewayRequest } from '../protocol/routes.ts'
import type { Authorisation, Authoriser, CallSubject, GatewayProvider } from './authorise.ts'
import { prepareBody, type CallBody, type SentBody } from './body.ts'
import type { Books, NewInterception, Refusal } from './books.ts'
import { settleInTime, type OpenCall } from './call.ts'
import type { Endpoint } from './endpoints.ts'
import type { KeyHealth } from './key-health.ts'
import { chooseCredentials, type Credential } from './upstream.ts'
import { unreportedInput, outputBound, worstCaseMicros } from './worst-case.ts'

/** What it takes to open a call: to find what it needs, bound what it may cost, and write it down before it is made. */
export interface OpeningEffects {
  authoriser: Authoriser
  books: Books
  health: KeyHealth
  callLimitMs: number
  metrics: GatewayObserver
  /** Resolves after as many ms, without keeping the process. */
  wait(ms: number): Promise<void>
  onUnsettled(error: unknown): void
}

/** How often a call is looked up anew because what it goes by was changed meanwhile. */
const LOOKS = 5

/** @throws {TurnmillError} why the call may not be made. */
export async function openCall(
  asking: Asking,
  effects: OpeningEffects,
): Promise<{ call: OpenCall; facts: CallFacts }> {
  const { subject } = asking
  for (let look = 1; ; look++) {
    const facts = await findFacts(asking, look > 1, effects)
    const interception = toInterception(facts, effects)
    const refusal = await writeDown(interception, effects)
    if (refusal === null) return { call: toOpenCall(interception.id, facts, effects), facts }
    if (refusal !== 'stale' || look === LOOKS) throw refusedByBooks(refusal, subject)
  }
}

/** When a call that was not made is taken back, in ms: its statement may go on where its connection broke. */
const TAKEN_BACK_MS = [1000, 10_000]

/** @throws {TurnmillError} Where it cannot be known whether the call is written down, it is not made, and taken back. */
async function writeDown(interception: NewInterception, effects: OpeningEffects): Promise<Refusal | null> {
  try {
    return await effects.books.open(interception)
  } catch (error) {
    if (isTurnmillError(error) && error.code === 'database_unavailable') void takeBack(interception, effects)
    throw error
  }
}

/** Lest it is charged at its worst case, and holds back money until then. Never throws. */
async function takeBack(
  { id, credential }: NewInterception,
  { books, wait, onUnsettled }: OpeningEffects,
): Promise<void> {
  for (const ms of TAKEN_BACK_MS) {
    await wait(ms)
    await settleInTime(
      books,
      {
        ...{ id, credential, status: null, errorCode: 'database_unavailable', usage: null, costMicros: 0 },
        ...{ firstByteMs: null, prompt: null, tools: [] },
      },
      onUnsettled,
    )
  }
}

/** What is remembered refuses nothing: it may have changed. @throws {TurnmillError} */
async function findFacts(asking: Asking, fresh: boolean, effects: OpeningEffects): Promise<CallFacts> {
  const authorised = await effects.authoriser.authorise(asking.subject, fresh)
  try {
    return toFacts(asking, authorised, effects)
  } catch (error) {
    if (fresh) throw error
    return findFacts(asking, true, effects)
  }
}

/** What is known of a call by itself. */
interface Asking {
  request: GatewayRequest
  caller: Caller
  endpoint: Endpoint
  body: CallBody
  subject: CallSubject
  /** By this process's monotonic clock. */
  startedAt: number
}

/** @throws {TurnmillError} */
function toFacts(asking: Asking, authorised: Authorisation, { health }: OpeningEffects): CallFacts {
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
export interface CallFacts extends Asking {
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
  new TurnmillError(
    'gateway_unauthorized',
    'the API key of this call is revoked or expired, or its owner is not active; use another one',
  )

/** The gateway has written a limit into the body where a budget applies. */
const boundedOutput = ({ body: { asked }, authorised }: CallFacts): number | null =>
  asked === null || (asked.outputLimit === null && !authorised.budgeted)
    ? null
    : asked.answers * outputBound(asked, authorised.model)

const boundOf = ({ body, sent, authorised }: CallFacts): number | null =>
  body.asked === null ? 0 : worstCaseMicros(body.asked, sent.bytes?.byteLength ?? 0, authorised.model)

function toInterception(facts: CallFacts, { callLimitMs }: OpeningEffects): NewInterception {
  const { caller, endpoint, body, authorised, subject, credential } = facts
  const turn = caller.kind === 'delegated' ? caller : null
  return {
    id: newId(),
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

function toOpenCall(id: string, facts: CallFacts, { books, metrics, onUnsettled }: OpeningEffects): OpenCall {
  const { caller, body, sent, authorised, labels, startedAt } = facts
  const { asked } = body
  return {
    id,
    prompt: asked?.prompt ?? null,
    prices: authorised.model?.prices ?? null,
    bounds: {
      input: asked === null ? 0 : unreportedInput(asked, sent.bytes?.byteLength ?? 0, authorised.model),
      output: boundedOutput(facts),
    },
    startedAt,
    books,
    onEnded: (observation) => {
      metrics.onCall({ ...labels, ...observation })
      if (caller.kind === 'delegated') caller.onCharged?.(observation.usage)
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
      return new TurnmillError('database_unavailable', `what ${call} needs was changed again and again`, {
        retryAfterMs: BUSY_MS,
      })
    case 'model_unpriced':
      return new TurnmillError(
        refusal,
        `${call} falls under a budget, and has no price; an admin gives it one in a model config of this provider and model, by POST or PATCH /v1/model-configs`,
      )
  }
}

const BUSY_MS = 1000
