import { ERRORS } from '../../src/protocol/errors.ts'
import { MADE_BY, page, table } from './markdown.ts'

/** `docs/errors.md` */
export const errorsPage = (): string =>
  page(
    MADE_BY,
    '# Errors',
    'Every code that Turnmill answers a request with, stores on a turn or fails a job with. Answers are ' +
      '`application/problem+json` (RFC 9457) with `type`, `title`, `status`, `code`, `detail` and `requestId`; a failed turn ' +
      'carries `code`, `message` and `recovery` in its `error`. `retry` means that the same work may be tried again, `stop` that ' +
      'trying again changes nothing. Source: `ERRORS` in `src/protocol/errors.ts`.',
    table(
      ['code', 'status', 'recovery', 'meaning'],
      Object.entries(ERRORS).map(([code, { status, recovery, meaning }]) => [
        `\`${code}\``,
        String(status),
        recovery,
        meaning,
      ]),
    ),
  )
