import type { ErrorCode } from '../protocol/errors.ts'
import { isErrorCode, isTurnmillError, TurnmillError } from '../protocol/errors.ts'
import type { WireFormat } from '../protocol/routes.ts'
import type { Secret } from '../protocol/secret.ts'
import { asRecord, asText, isRecord } from './outside.ts'
import { parseRetryAfter } from './retry-after.ts'
import { scrub } from './scrub.ts'

/** Where a failure came up, and what its message must not repeat. */
export interface FailureContext {
  wireFormat: WireFormat
  model: string
  provider: string
  credential: Secret
  /** `open` until the provider's answer began, then `read`. */
  phase: 'open' | 'read'
}

/** An SDK's error of a call that was answered, as both SDKs have it. */
export interface SdkApiError extends Error {
  readonly status: number | undefined
  readonly headers: Headers | undefined
  /** Of the body; OpenAI's SDK keeps its `error`, Anthropic's the whole of it. */
  readonly error: unknown
}

/** The classes by which an SDK tells what could not be reached from what was answered. */
export interface SdkErrors {
  APIError: abstract new (...values: never[]) => SdkApiError
  APIConnectionError: abstract new (...values: never[]) => Error
}

/** What a provider reported, in whichever shape it did. */
interface ProviderFailure {
  /** Undefined for an error event in a stream that had begun with 200. */
  status: number | undefined
  /** Its machine-readable words for it, finest first. */
  names: readonly string[]
  message: string
  headers: Headers | undefined
}

/** Any failure of a model call as ours. The SDK's error does not go along as cause: it holds bodies and headers. */
export function toProviderError(error: unknown, sdk: SdkErrors, context: FailureContext): TurnmillError {
  const ours = causesOf(error).find(isTurnmillError)
  if (ours !== undefined) return ours
  if (error instanceof sdk.APIConnectionError) return toConnectionError(error, context)
  if (error instanceof sdk.APIError) return toReportedError(readFailure(error), context)
  return context.phase === 'open' ? toUnexpectedError(error, context) : toBrokenStream(error, context)
}

/** A failure that a provider reported inside an ordinary event, such as `response.failed`. */
export function reportedInEvent(error: unknown, context: FailureContext): TurnmillError {
  const fields = asRecord(error)
  const message = asText(fields.message)
  return toReportedError({ status: undefined, names: namesOf(fields), message, headers: undefined }, context)
}

/** The stream is not what its wire format says. `what` is a phrase: `ended without …`. */
export const brokenStream = (what: string, context: FailureContext): TurnmillError =>
  new TurnmillError('provider_stream_broken', `${subjectOf(context)} ${scrub(what, context.credential)}`)

/**
 * There is no answer but a call that cannot be answered: of a tool that the provider has of its own, or in a form that
 * has no ids. Asked again, the model would do the same.
 *
 * @param name of the tool; may be empty.
 */
export const unofferedToolCall = (
  name: string,
  { credential, ...context }: FailureContext,
): TurnmillError => {
  const asked = name === '' ? 'a tool' : `the tool '${scrub(name, credential)}'`
  return new TurnmillError(
    'provider_rejected',
    `${subjectOf(context)} asked for ${asked}, expected text: it was not offered`,
  )
}

/** @param limit the most characters that an answer may have. */
export const endlessAnswer = (limit: number, context: FailureContext): TurnmillError =>
  new TurnmillError('provider_rejected', `${subjectOf(context)} answered with more than ${limit} characters`)

/** @param limit the most characters that the arguments of one call may have. */
export const overlongArguments = (limit: number, context: FailureContext): TurnmillError =>
  new TurnmillError(
    'provider_rejected',
    `${subjectOf(context)} called a tool with more than ${limit} characters of arguments`,
  )

/** @param limit the most calls that an answer may ask for. */
export const endlessCalls = (limit: number, context: FailureContext): TurnmillError =>
  new TurnmillError(
    'provider_rejected',
    `${subjectOf(context)} called tools more than ${limit} times at once`,
  )

export const subjectOf = ({ wireFormat, model, provider }: Omit<FailureContext, 'credential'>): string =>
  `${wireFormat} model ${model} of provider ${provider}`

// --- What failed before or beside an answer

/** The codes of undici for its own limits; it gives up on a silent server after 300 s. */
const TIMEOUT_CODES = ['UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT']

function toConnectionError(error: Error, context: FailureContext): TurnmillError {
  const code = systemCodeOf(error)
  const what = code ?? scrub(causesOf(error).at(-1)?.message ?? error.message, context.credential)
  if (TIMEOUT_CODES.includes(what)) return timedOut(what, context)
  return new TurnmillError('provider_unreachable', `${subjectOf(context)} could not be reached: ${what}`)
}

const timedOut = (code: string, context: FailureContext): TurnmillError =>
  new TurnmillError('provider_timeout', `${subjectOf(context)} was silent for too long: ${code}`)

function toBrokenStream(error: unknown, context: FailureContext): TurnmillError {
  const code = systemCodeOf(error)
  if (code !== undefined && TIMEOUT_CODES.includes(code)) return timedOut(code, context)
  return brokenStream(`broke off or cannot be read: ${code ?? describe(error)}`, context)
}

/** A bug or an impossible setting. The error itself stays behind: a refused header's value is in its message. */
function toUnexpectedError(error: unknown, context: FailureContext): TurnmillError {
  const what = scrub(describe(error), context.credential)
  return new TurnmillError('turn_failed', `the call of ${subjectOf(context)} could not be made: ${what}`)
}

const describe = (error: unknown): string => (isErrorLike(error) ? error.message : String(error))

/** An error and what caused it, outermost first. Decides by shape: errors of another realm are no `Error` here. */
function causesOf(error: unknown): Error[] {
  const chain: Error[] = []
  let next = error
  while (isErrorLike(next) && !chain.includes(next)) {
    chain.push(next)
    next = next.cause
  }
  return chain
}

const isErrorLike = (error: unknown): error is Error => isRecord(error) && typeof error.message === 'string'

function systemCodeOf(error: unknown): string | undefined {
  const codes = causesOf(error).map((cause) => asText(asRecord(cause).code))
  return codes.find((code) => /^(E[A-Z]|UND_ERR_)/.test(code))
}

// --- What a provider reported

function readFailure(error: SdkApiError): ProviderFailure {
  const body = asRecord(error.error)
  const fields = isRecord(body.error) ? body.error : body
  const status = error.status ?? statusOf(fields.code)
  const message = asText(fields.message) || error.message.replace(/^\d{3} /, '')
  return { status, names: namesOf(fields), message, headers: error.headers }
}

/** OpenRouter reports an upstream's status as a number in the event. */
const statusOf = (code: unknown): number | undefined =>
  typeof code === 'number' && code >= 400 && code <= 599 ? code : undefined

const namesOf = (fields: Record<string, unknown>): string[] =>
  [asRecord(fields.details).error_code, fields.code, fields.type].map(asText).filter(Boolean)

function toReportedError(failure: ProviderFailure, context: FailureContext): TurnmillError {
  const retryAfterMs = failure.headers && parseRetryAfter(failure.headers)
  const refusal = refusalOfGateway(failure)
  // It says itself what it refused, and the model has no part in it.
  if (refusal !== undefined)
    return new TurnmillError(refusal, scrub(failure.message, context.credential), { retryAfterMs })
  return new TurnmillError(classify(failure), messageOf(failure, context), { retryAfterMs })
}

/**
 * The gateway's own refusals carry their code in a header. Trusted wherever it stands: the gateway strips it from
 * upstream answers, and so does the fetch of a direct connection.
 */
function refusalOfGateway({ headers }: ProviderFailure): ErrorCode | undefined {
  const code = headers?.get('x-turnmill-error')
  // What it holds is a history, which can be summed up.
  if (code === 'payload_too_large') return 'context_too_long'
  return isErrorCode(code) ? code : undefined
}

function messageOf({ status, names, message }: ProviderFailure, context: FailureContext): string {
  const verb = status === undefined ? 'reported an error in its stream' : `answered ${status}, expected 200`
  const name = names[0] === undefined ? '' : ` (${names[0]})`
  return scrub(`${subjectOf(context)} ${verb}${name}: ${message || 'no message'}`, context.credential)
}

/** Terminal causes first: providers send spent quotas as 429 and overlong conversations as 400. */
function classify(failure: ProviderFailure): ErrorCode {
  if (isQuotaExhausted(failure)) return 'provider_quota_exhausted'
  if (isContextTooLong(failure)) return 'context_too_long'
  return failure.status === undefined ? classifyName(failure.names) : classifyStatus(failure.status)
}

const QUOTA_NAMES = /^insufficient_(quota|credits|balance)$|billing|spend_limit_reached$|^credit_/
const QUOTA_MESSAGES = /credit balance is too low|insufficient (credits?|balance|funds)/i

const isQuotaExhausted = ({ status, names, message }: ProviderFailure): boolean =>
  status === 402 || names.some((name) => QUOTA_NAMES.test(name)) || QUOTA_MESSAGES.test(message)

const CONTEXT_NAMES = [
  'context_length_exceeded',
  'exceed_context_size_error',
  'string_above_max_length',
  'request_too_large',
]
const CONTEXT_MESSAGES = [
  /(prompt|input) is too long/i,
  /exceeds? (the )?(model's )?(available )?context (window|limit|size|length)/i,
  /maximum (context|prompt) length/i,
  /input token count .* exceeds/i,
  /inputs?`? tokens \+ `?max_new_tokens`? must be <=/i,
  /reduce the length of the (messages|prompt|input)/i,
]

function isContextTooLong({ status, names, message }: ProviderFailure): boolean {
  if (status !== undefined && ![400, 413, 422].includes(status)) return false
  return (
    names.some((name) => CONTEXT_NAMES.includes(name)) ||
    CONTEXT_MESSAGES.some((pattern) => pattern.test(message))
  )
}

function classifyStatus(status: number): ErrorCode {
  if (status === 401 || status === 403) return 'provider_auth_failed'
  if ([408, 409, 429].includes(status) || status >= 500) return 'provider_overloaded'
  if (status === 413) return 'context_too_long'
  return 'provider_rejected'
}

/** How an error event's name is to be read; the first that matches counts. */
const NAMED_ERRORS: readonly [pattern: RegExp, code: ErrorCode][] = [
  [/authentication|permission|invalid_api_key/, 'provider_auth_failed'],
  [/rate_limit|overloaded|server_error|^api_error$|timeout|unavailable/, 'provider_overloaded'],
  [/^invalid_|not_found|policy|too_large|unsupported/, 'provider_rejected'],
]

function classifyName(names: readonly string[]): ErrorCode {
  const found = NAMED_ERRORS.find(([pattern]) => names.some((name) => pattern.test(name)))
  return found?.[1] ?? 'provider_stream_broken'
}
