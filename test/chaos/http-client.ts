/** Requests that are sent again, under the same Idempotency-Key and to any API, until somebody answers. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Fleet, Seat } from './fleet.ts'
import type { Ledger, Outcome } from './ledger.ts'
import type { Random } from './random.ts'

export interface Answer {
  outcome: Outcome
  status: number
  body: Record<string, unknown>
  /** Sent more than once, so that an earlier one may have had the effect. */
  repeated: boolean
}

export interface HttpClient {
  request(method: string, path: string, body?: unknown): Promise<Answer>
  /** Follows a chat's events until the signal aborts or the API ends. */
  watch(chatId: string, signal: AbortSignal): Promise<void>
}

export interface HttpClientOptions {
  fleet: Fleet
  ledger: Ledger
  random: Random
  token: string
}

const ANSWER_WITHIN_MS = 15_000
const GIVE_UP_AFTER_MS = 90_000
/** One in so many requests is hung up on, so that what it did is asked for again. */
const IMPATIENT_SHARE = 0.04
const IMPATIENCE_MS = 60

interface Sent {
  status: number
  body: Record<string, unknown>
  replayed: boolean
}

export function createHttpClient({ fleet, ledger, random, token }: HttpClientOptions): HttpClient {
  const authorization = `Bearer ${token}`

  async function request(method: string, path: string, body?: unknown): Promise<Answer> {
    const headers = {
      authorization,
      'idempotency-key': crypto.randomUUID(),
      ...(body !== undefined && { 'content-type': 'application/json' }),
    }
    const init = { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) }
    const giveUpAt = Date.now() + GIVE_UP_AFTER_MS
    for (let tries = 1; Date.now() < giveUpAt; tries++) {
      const sent = await sendOnce(path, init)
      if (sent === null) ledger.unanswered++
      else if (!isPassing(sent)) return toAnswer(sent, tries > 1)
      await sleep(random.between(50, 300))
    }
    return { outcome: 'unknown', status: 0, body: {}, repeated: true }
  }

  async function sendOnce(path: string, init: RequestInit): Promise<Sent | null> {
    const seats = fleet.usable('api')
    if (seats.length === 0) return null
    const seat = random.pick(seats)
    return counted(seat, async () => {
      const patienceMs = random.chance(IMPATIENT_SHARE) ? random.integer(1, IMPATIENCE_MS) : ANSWER_WITHIN_MS
      const response = await fetch(seat.address + path, { ...init, signal: AbortSignal.timeout(patienceMs) })
      const text = await response.text()
      const replayed = response.headers.get('idempotency-replayed') === 'true'
      if (replayed) ledger.replayed++
      return { status: response.status, body: parse(text), replayed }
    }).catch(() => null)
  }

  /** Outages and floods pass. */
  function isPassing({ status, body }: Sent): boolean {
    const code = String(body['code'])
    if (status === 500) ledger.offences.push(`500 ${code}: ${JSON.stringify(body)}`)
    if (status >= 400) ledger.refuse(code)
    return status >= 500 || status === 429
  }

  async function watch(chatId: string, signal: AbortSignal): Promise<void> {
    const seats = fleet.usable('api')
    if (seats.length === 0) return
    ledger.watched++
    try {
      const url = `${random.pick(seats).address}/v1/chats/${chatId}/stream`
      const response = await fetch(url, { headers: { authorization }, signal })
      for await (const _ of response.body ?? []) if (signal.aborted) return
    } catch {
      // The API was killed, or the watcher has seen enough: neither is anybody's loss.
    }
  }

  return { request, watch }
}

async function counted<T>(seat: Seat, work: () => Promise<T>): Promise<T> {
  const { process: served } = seat
  seat.inFlight++
  try {
    return await work()
  } finally {
    if (seat.process === served) seat.inFlight--
  }
}

const parse = (text: string): Record<string, unknown> =>
  text === '' ? {} : (JSON.parse(text) as Record<string, unknown>)

const toAnswer = ({ status, body }: Sent, repeated: boolean): Answer => ({
  outcome: status < 300 ? 'acknowledged' : 'refused',
  status,
  body,
  repeated,
})
