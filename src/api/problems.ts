import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod'
import { isForeignKeyViolation, isUniqueViolation, toDatabaseError } from '../db/index.ts'
import { ERRORS, isTurnmillError, TurnmillError, type ErrorCode } from '../protocol/errors.ts'
import type { Logger } from '../telemetry/logger.ts'

/** Fastify's own errors, as ours. What is not named here is a bad request below 500 and a bug from 500 on. */
const FASTIFY_CODES: Readonly<Record<string, ErrorCode>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'payload_too_large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported_media_type',
  FST_ERR_NOT_FOUND: 'not_found',
}

/**
 * Any failure of a request as one of ours, with a text that is safe to show.
 *
 * @param request where its route is known, so that the text says what that takes.
 */
export function toProblem(error: FastifyError | TurnmillError, request?: FastifyRequest): TurnmillError {
  if (isTurnmillError(error)) return error
  // Two requests at once, or a thing that was deleted in mid-request: the database had the last word.
  if (isUniqueViolation(error) || isForeignKeyViolation(error))
    return new TurnmillError(
      'conflict',
      'another request changed the same thing meanwhile; send this one again',
    )
  if (hasZodFastifySchemaValidationErrors(error))
    return new TurnmillError('invalid_request', describeValidation(error))
  const { code, statusCode = 500, message } = error
  const known = FASTIFY_CODES[code]
  if (known !== undefined)
    return new TurnmillError(
      known,
      request === undefined ? message : (describeBody(known, request) ?? message),
    )
  if (statusCode < 500) return new TurnmillError('invalid_request', message)
  // It goes by texts, too, and those of a bad request may be the client's.
  const failure = toDatabaseError(error)
  if (isTurnmillError(failure)) return failure
  return new TurnmillError('internal', 'an unexpected error, logged under the request id', { cause: error })
}

/** What is wrong with a body of JSON: where it can be read, it has a field that is refused. */
export function whyNotTaken(body: string, error: Error): Error {
  try {
    JSON.parse(body)
  } catch {
    return error
  }
  return new TurnmillError(
    'invalid_request',
    'the body has a field named __proto__, or prototype within constructor, which is not taken',
  )
}

/** What the route takes, where the body is not that. */
function describeBody(code: ErrorCode, { method, headers, routeOptions }: FastifyRequest): string | null {
  const { url = '', bodyLimit, schema } = routeOptions
  const types = (schema as { consumes?: string[] } | undefined)?.consumes ?? ['application/json']
  if (code === 'unsupported_media_type')
    return `the Content-Type is ${JSON.stringify(headers['content-type'] ?? '')}, expected ${listOf(types)}`
  if (code !== 'payload_too_large') return null
  const instead = types.includes('application/json')
    ? '; upload images by POST /v1/files, and name them by fileId'
    : ''
  return `the body is larger than the ${bodyLimit} bytes that ${method} ${url} takes${instead}`
}

const listOf = (words: readonly string[]): string =>
  new Intl.ListFormat('en', { type: 'disjunction' }).format(words)

interface ValidationFailure {
  validationContext?: string
  validation: { instancePath: string; message?: string | undefined }[]
}

// `body/content: Invalid input`, one per field, in the order they were found.
function describeValidation({ validationContext = 'request', validation }: ValidationFailure): string {
  const problems = validation
    .slice(0, 5)
    .map(({ instancePath, message = 'not valid' }) => `${validationContext}${instancePath}: ${message}`)
  return problems.join('; ')
}

/** Answers with `application/problem+json` (RFC 9457). */
export function sendProblem(
  request: FastifyRequest,
  reply: FastifyReply,
  error: TurnmillError,
): FastifyReply {
  const { status, retryAfterMs } = error
  if (retryAfterMs !== undefined) reply.header('retry-after', Math.ceil(retryAfterMs / 1000))
  if (status === 401) reply.header('www-authenticate', challenge(request))
  return reply.code(status).type('application/problem+json').send(describeProblem(error, request.id))
}

/** The body of a refusal, as JSON. */
export const describeProblem = (
  { code, status, message, extensions }: TurnmillError,
  requestId: string,
): string =>
  JSON.stringify({
    ...extensions,
    type: `urn:turnmill:error:${code}`,
    title: ERRORS[code].meaning,
    status,
    code,
    detail: message,
    requestId,
  })

const challenge = (request: FastifyRequest): string =>
  request.routeOptions.config.basic === true ? 'Basic realm="Turnmill"' : 'Bearer'

export function createErrorHandler(logger: Logger) {
  return (
    error: FastifyError | TurnmillError,
    request: FastifyRequest,
    reply: FastifyReply,
  ): FastifyReply => {
    const problem = toProblem(error, request)
    if (problem.code === 'internal')
      logger.error(
        { error, requestId: request.id, route: request.routeOptions.url },
        'unexpected error in a request',
      )
    return sendProblem(request, reply, problem)
  }
}
