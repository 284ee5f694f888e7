/** Whether the same work may be tried again, or must stop. */
export type Recovery = 'retry' | 'stop'

interface ErrorRow {
  /** HTTP status where the error reaches a client. */
  status: number
  recovery: Recovery
  /** One sentence: what happened and what to do next. `docs/errors.md` is generated from it. */
  meaning: string
}

/** Every code Turnmill answers, stores or fails a job with. */
export const ERRORS = {
  // requests
  invalid_request: {
    status: 400,
    recovery: 'stop',
    meaning: 'The request does not have the shape the route expects; `detail` names the field.',
  },
  unauthenticated: {
    status: 401,
    recovery: 'stop',
    meaning:
      'No usable API key was sent: absent, malformed, unknown, expired, revoked, or its owner is not active.',
  },
  forbidden: {
    status: 403,
    recovery: 'stop',
    meaning:
      'The API key lacks the scope or its owner the role that the route needs, or Bull Board was asked for more than to show and retry, or by another site.',
  },
  not_found: { status: 404, recovery: 'stop', meaning: 'No such thing, or it belongs to somebody else.' },
  conflict: {
    status: 409,
    recovery: 'stop',
    meaning:
      'Something stands in the way: a name that is taken, a thing that is still needed, or a change that somebody else has just made. `detail` says which, and what to do.',
  },
  idempotency_key_reused: {
    status: 422,
    recovery: 'stop',
    meaning:
      'The `Idempotency-Key` was sent with another method, path or body within the last 24 hours. Take a new key for a new request.',
  },
  payload_too_large: {
    status: 413,
    recovery: 'stop',
    meaning: 'The body is larger than the route takes (1 MB for messages, 10 MB for files).',
  },
  unsupported_media_type: {
    status: 415,
    recovery: 'stop',
    meaning:
      'The body is of a kind that the route does not take: a file must be an image (PNG, JPEG, GIF or WebP), all else `application/json`.',
  },
  files_full: {
    status: 409,
    recovery: 'stop',
    meaning:
      'With this file the user would keep more than `TURNMILL_FILES_PER_USER_BYTES`. Delete files, or chats that name them.',
  },
  internal: {
    status: 500,
    recovery: 'stop',
    meaning: 'A bug of Turnmill. The log has it under the request id.',
  },
  secret_unreadable: {
    status: 500,
    recovery: 'stop',
    meaning:
      'A credential, header or answer that is stored encrypted does not decrypt: this process has not the key, or another value for it. Give all processes the same `TURNMILL_ENCRYPTION_KEYS`, old keys behind the new one, and start them anew. The log names the row and the key.',
  },
  database_unavailable: {
    status: 503,
    recovery: 'retry',
    meaning:
      'Postgres cannot be reached. Nothing was accepted; send the same request again after `Retry-After`.',
  },
  overloaded: {
    status: 503,
    recovery: 'retry',
    meaning:
      'Turns wait too long for a worker. Nothing was accepted; send the same request again after `Retry-After`.',
  },

  // chats
  chat_busy: {
    status: 409,
    recovery: 'stop',
    meaning:
      'A turn runs or messages are queued, and the request needs a chat at rest (`whenBusy: reject`, archiving).',
  },
  chat_archived: { status: 409, recovery: 'stop', meaning: 'The chat is archived. Unarchive it first.' },
  queue_full: {
    status: 409,
    recovery: 'retry',
    meaning: 'The chat already holds as many queued messages as it may. Wait until one is promoted.',
  },
  message_not_editable: {
    status: 409,
    recovery: 'stop',
    meaning: 'Only user messages that are still part of the history can be edited.',
  },
  too_many_pending_turns: {
    status: 429,
    recovery: 'retry',
    meaning: 'The user has as many pending turns as allowed. Wait until some have run.',
  },
  move_refused: {
    status: 409,
    recovery: 'stop',
    meaning: 'The turn or chat is in a state from which this transition is not allowed.',
  },

  not_waiting: {
    status: 409,
    recovery: 'stop',
    meaning:
      'No tool call of the chat waits for its client: it was answered, refused for lack of an answer, or stopped.',
  },
  subagent_limit: {
    status: 409,
    recovery: 'stop',
    meaning: 'Subagents are nested too deep, or too many of them are at work.',
  },

  // attribution
  missing_key: {
    status: 409,
    recovery: 'stop',
    meaning:
      'The turn carries no API key ID, and gateway routing makes no call without one. The user can send the message again; an operator can retry it under a living key, or switch to direct routing and use the retry of Bull Board.',
  },
  key_revoked: {
    status: 409,
    recovery: 'stop',
    meaning:
      'The API key that started the turn is expired or revoked, or its owner is not active. Send the message again under a living key.',
  },
  job_key_mismatch: {
    status: 409,
    recovery: 'stop',
    meaning:
      'The job names another API key or chat than the row of its turn. The job was refused, the turn is untouched and gets a job of its own.',
  },
  gateway_unauthorized: {
    status: 401,
    recovery: 'stop',
    meaning: 'The AI gateway did not accept the API key of the call.',
  },
  gateway_unavailable: {
    status: 503,
    recovery: 'stop',
    meaning: 'Gateway routing is on and this process has no gateway.',
  },

  budget_exceeded: {
    status: 402,
    recovery: 'stop',
    meaning:
      'What a budget has left does not cover the worst case of the call; `budget` names it. Raise the budget, ask for a shorter answer, or wait for its next period.',
  },
  budget_busy: {
    status: 429,
    recovery: 'retry',
    meaning:
      'Only calls that are under way keep the budget from covering this one; `budget` names it. Try again soon.',
  },
  model_unpriced: {
    status: 409,
    recovery: 'stop',
    meaning: 'A budget applies to the call, and its model has no price to count by.',
  },

  // routes
  model_config_missing: {
    status: 409,
    recovery: 'stop',
    meaning: 'No usable model config: the chosen one is gone or disabled, and there is no default.',
  },
  provider_missing: { status: 409, recovery: 'stop', meaning: 'The model config names no stored provider.' },
  provider_disabled: {
    status: 409,
    recovery: 'stop',
    meaning: 'The provider is disabled. Enable it or choose another model.',
  },
  provider_address_refused: {
    status: 409,
    recovery: 'stop',
    meaning:
      'The base URL of the provider is no https, or leads to an address that is not public. Nothing was sent. `TURNMILL_ALLOW_PRIVATE_PROVIDERS` lifts it.',
  },
  no_provider_for_type: {
    status: 409,
    recovery: 'stop',
    meaning: 'No enabled provider of the type that the purpose needs.',
  },
  provider_auth_failed: {
    status: 409,
    recovery: 'stop',
    meaning: 'There is no credential for the provider, or the provider refused it (401, 403).',
  },
  provider_name_missing: {
    status: 409,
    recovery: 'stop',
    meaning: 'The provider has no name, and the gateway routes by name.',
  },

  // providers
  provider_overloaded: {
    status: 503,
    recovery: 'retry',
    meaning: 'The provider refused for now (408, 409, 429, 5xx, 529).',
  },
  rate_limited: {
    status: 429,
    recovery: 'stop',
    meaning:
      'The provider refused for now and asked for a longer wait than a turn may take (10 min). Retry the turn later, or under another model.',
  },
  provider_unreachable: {
    status: 502,
    recovery: 'retry',
    meaning: 'The provider could not be reached, or the connection broke.',
  },
  provider_timeout: {
    status: 504,
    recovery: 'retry',
    meaning: 'The provider was silent, or its answer took, for longer than allowed.',
  },
  provider_stream_broken: {
    status: 502,
    recovery: 'retry',
    meaning: "The provider's stream ended without its own ending, or was no stream of its wire format.",
  },
  provider_rejected: {
    status: 502,
    recovery: 'stop',
    meaning:
      'The provider refused the request (400, 404, 422 and the like), or answered with what is of no use.',
  },
  provider_quota_exhausted: {
    status: 502,
    recovery: 'stop',
    meaning: "The provider's account has no credit left.",
  },
  context_too_long: {
    status: 502,
    recovery: 'stop',
    meaning:
      "The conversation is longer than the model's context window, or than a request may be (the provider's limit, or the 32 MB of the gateway).",
  },

  // turns
  step_limit: {
    status: 409,
    recovery: 'stop',
    meaning:
      'The turn, or it and its subagents together, have taken as many steps as allowed. Send another message to go on.',
  },
  cost_limit: {
    status: 402,
    recovery: 'stop',
    meaning: 'The turn and its subagents have cost as much as one turn may. Send another message to go on.',
  },
  turn_timeout: {
    status: 504,
    recovery: 'stop',
    meaning: 'The turn has run for as long as one turn may. Send another message to go on.',
  },
  compaction_failed: {
    status: 502,
    recovery: 'stop',
    meaning:
      'The history is to be summed up, and no summary could be had of it. Try again, with another model for the purpose `compaction`, or clear the chat.',
  },
  turn_failed: {
    status: 500,
    recovery: 'stop',
    meaning: 'The turn stopped on an unexpected error: a bug of Turnmill. The log has it under the turn id.',
  },
  turn_fenced: {
    status: 409,
    recovery: 'stop',
    meaning: 'Another worker holds the turn, or it ended meanwhile; what this worker had was dropped.',
  },
  worker_stopped: {
    status: 503,
    recovery: 'retry',
    meaning: 'The worker was told to stop before the turn ended; the turn goes on elsewhere.',
  },
  turn_interrupted: {
    status: 409,
    recovery: 'stop',
    meaning: 'The turn was told to stop; what there was of its answer is committed.',
  },
  worker_lost: {
    status: 500,
    recovery: 'stop',
    meaning: 'The turn was taken over too often without a committed step; it may be what kills its workers.',
  },
} as const satisfies Record<string, ErrorRow>

export type ErrorCode = keyof typeof ERRORS

export const isErrorCode = (value: unknown): value is ErrorCode =>
  typeof value === 'string' && Object.hasOwn(ERRORS, value)

export interface TurnmillErrorOptions extends ErrorOptions {
  /** How long to wait before the next try, in ms, when somebody said. */
  retryAfterMs?: number | undefined
  /** What a program can read beside the code. */
  extensions?: Readonly<Record<string, unknown>>
}

/** The one base of our errors. `message` gives the thing, the value and what was expected, and never a secret. */
export class TurnmillError extends Error {
  override readonly name: string = 'TurnmillError'
  readonly code: ErrorCode
  readonly retryAfterMs: number | undefined
  /** Further members of the problem that a client gets. Source: RFC 9457, section 3.2. */
  readonly extensions: Readonly<Record<string, unknown>>

  constructor(code: ErrorCode, message: string, options: TurnmillErrorOptions = {}) {
    super(message, options)
    this.code = code
    this.retryAfterMs = options.retryAfterMs
    this.extensions = options.extensions ?? {}
  }

  get status(): number {
    return ERRORS[this.code].status
  }

  get recovery(): Recovery {
    return ERRORS[this.code].recovery
  }
}

/** What is stored of an error in `turns.error` and `chats.last_error`, and shown to watchers. */
export interface StoredError {
  code: ErrorCode
  message: string
  recovery: Recovery
}

export const toStoredError = (error: TurnmillError): StoredError => ({
  code: error.code,
  message: error.message,
  recovery: error.recovery,
})

/** Decides by name: an error of another realm (a test runner's, a worker's) is not `instanceof` ours. */
export const isTurnmillError = (error: unknown): error is TurnmillError =>
  error instanceof TurnmillError ||
  (typeof error === 'object' &&
    error !== null &&
    'code' in error &&
    isErrorCode(error.code) &&
    'retryAfterMs' in error)

/** Any thrown value as ours. What is unknown is a bug: it stops, and its text stays in the log. */
export function toTurnError(error: unknown): TurnmillError {
  if (isTurnmillError(error)) return error
  return new TurnmillError('turn_failed', 'the turn stopped on an unexpected error; see the log', {
    cause: error,
  })
}
