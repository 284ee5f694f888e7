import type { SimulatedRequest } from '../../src/development/index.ts'
import type { Client } from './client.ts'
import type { Sent } from './story.ts'
import { terminal } from './terminal.ts'

const KEY_HEADER = 'x-turnmill-key-id'

/**
 * Holds what the provider saw against what was sent: one request per message, each under its sender's key.
 *
 * @throws {Error} saying what differs.
 */
export function showAttribution(
  requests: readonly SimulatedRequest[],
  sent: readonly Sent[],
  clients: readonly Client[],
): void {
  terminal.heading('4  Whose call was it? The provider’s own journal against what was sent')
  for (const { name, keyId } of clients) terminal.tell(name, `key ID ${keyId}`)
  terminal.blank()
  const rows = Array.from({ length: Math.max(requests.length, sent.length) }, (_, index) =>
    compare(requests[index], sent[index]),
  )
  terminal.table(
    ['#', 'prompt as it reached the provider', 'sent by', 'key ID expected', 'key ID carried', ''],
    rows.map(toRow),
  )
  const wrong = rows.filter(({ right }) => !right).length
  if (wrong > 0) throw new Error(`${wrong} of ${rows.length} requests differ from what was sent`)
  terminal.blank()
  terminal.say(`${rows.length} of ${rows.length} requests carry the key ID of whoever sent the message.`)
  terminal.blank()
}

interface Compared {
  prompt: string
  by: string
  expected: string
  carried: string
  right: boolean
}

function compare(request: SimulatedRequest | undefined, sent: Sent | undefined): Compared {
  const expected = sent?.by.keyId ?? 'no request'
  const carried = request === undefined ? 'no request' : (request.headers[KEY_HEADER] ?? 'none')
  return {
    prompt: request?.prompt ?? sent?.prompt ?? '',
    by: sent?.by.name ?? 'nobody',
    expected,
    carried,
    right: request !== undefined && request.prompt === sent?.prompt && carried === expected,
  }
}

/** An ID's end tells keys of one minute apart: its beginning is the time. */
const short = (id: string): string => (id.includes('-') ? `…${id.slice(-12)}` : id)

const toRow = ({ prompt, by, expected, carried, right }: Compared, index: number) => ({
  cells: [String(index + 1), cut(prompt, 45), by, short(expected), short(carried), right ? 'same' : 'WRONG'],
  right,
})

const cut = (text: string, length: number): string =>
  text.length <= length ? text : `${text.slice(0, length - 1)}…`
