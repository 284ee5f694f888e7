/** What a connection fails with before it stands. Sources: Node's `errno` codes, and the errors of undici. */
const CODES: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT',
])

/** TLS that came to nothing, and certificates that were not taken. Source: Node's documentation of `tls`, X509 certificate error codes. */
const TLS_CODES =
  /^(ERR_SSL_|ERR_TLS_|CERT_|CRL_|ERROR_IN_(CERT|CRL)_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|(EPROTO|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED)$)/

/** How deep causes are looked at: they may go round in a circle. */
const DEPTH = 10

interface Failure {
  code?: unknown
  syscall?: unknown
  cause?: unknown
}

/** Whether a fetch failed before it had a connection. What comes later may be the doing of the request. */
export function isUnreachable(error: unknown, depth = DEPTH): boolean {
  if (typeof error !== 'object' || error === null || depth === 0) return false
  const failure: Failure = error
  return isOfConnecting(failure) || isUnreachable(failure.cause, depth - 1)
}

/** A connection that stood times out, or loses its route, while it is read or written. */
const isOfConnecting = ({ code, syscall }: Failure): boolean =>
  typeof code === 'string' &&
  (TLS_CODES.test(code) || (CODES.has(code) && syscall !== 'read' && syscall !== 'write'))
