import { isTurnmillError, TurnmillError } from '../protocol/errors.ts'

const UNREACHABLE = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ECONNABORTED',
  // https://www.postgresql.org/docs/current/errcodes-appendix.html
  '08000',
  '08001',
  '08003',
  '08004',
  '08006',
  '53300',
  '25006',
  '53100',
  '53200',
  '57014',
  '57P01',
  '57P02',
  '57P03',
  // https://www.prisma.io/docs/orm/reference/error-reference
  'P1001',
  'P1002',
  'P1008',
  'P1017',
  'P2024',
])

// `pg` gives these without a code.
const UNREACHABLE_TEXT =
  /connection terminated|timeout exceeded when trying to connect|not queryable|connection error/i

export const errorCode = (error: unknown): string | undefined =>
  typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string'
    ? error.code
    : undefined

const errorText = (error: unknown): string =>
  typeof error === 'object' && error !== null && 'message' in error ? String(error.message) : ''

export const isUnreachable = (error: unknown): boolean =>
  UNREACHABLE.has(errorCode(error) ?? '') || UNREACHABLE_TEXT.test(errorText(error))

/** Postgres ended the transaction for the sake of another one; the same transaction may run again. */
export const isTransient = (error: unknown): boolean =>
  ['40001', '40P01', 'P2034'].includes(errorCode(error) ?? '')

export const isUniqueViolation = (error: unknown): boolean =>
  errorCode(error) === '23505' || errorCode(error) === 'P2002'

export const isForeignKeyViolation = (error: unknown): boolean =>
  errorCode(error) === '23503' || errorCode(error) === 'P2003'

/** An unreachable Postgres as `database_unavailable`; anything else as it is. */
export function toDatabaseError(error: unknown): unknown {
  if (!isUnreachable(error)) return error
  return new TurnmillError('database_unavailable', 'Postgres cannot be reached', {
    cause: error,
    retryAfterMs: 1000,
  })
}

/** Postgres is there and does not let this role in, or not to this database. Source: as above. */
const NOT_LET_IN = new Set(['28000', '28P01', '3D000'])

/** A start that met no Postgres which lets it in, in words for whoever starts it; anything else as it is. */
export function toStartError(error: unknown): unknown {
  const met = isTurnmillError(error) && error.code === 'database_unavailable' ? error.cause : error
  if (!isUnreachable(met) && !NOT_LET_IN.has(errorCode(met) ?? '')) return error
  return new Error(`Postgres cannot be reached: ${reasonOf(met)}; check DATABASE_URL`, { cause: met })
}

/** A name with several addresses fails with an error for each, and no text of its own. */
function reasonOf(error: unknown): string {
  const { errors } = error as Partial<AggregateError>
  return errors === undefined ? errorText(error) : errors.map(errorText).join(', ')
}

/** A transaction that met others again and again, as one that may come back: it has written nothing. */
export const toContentionError = (error: unknown): TurnmillError =>
  new TurnmillError('database_unavailable', 'the transaction met others too often', {
    cause: error,
    retryAfterMs: 1000,
  })
