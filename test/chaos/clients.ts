/** The load: chats in which people say things, change their minds and lose patience. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Answer, HttpClient } from './http-client.ts'
import type { Ledger, MessageKind, SentMessage } from './ledger.ts'
import { pickWeighted, type Random } from './random.ts'

export interface Talker {
  ledger: Ledger
  random: Random
  /** One per API key of the same user, which take turns. */
  clients: readonly HttpClient[]
  modelConfigIds: readonly string[]
  /** Resolves when another message may be sent; false when the load is over. */
  mayGoOn(): Promise<boolean>
}

const DEEDS = {
  send: 52,
  burst: 5,
  sendInterrupting: 7,
  edit: 6,
  interrupt: 5,
  promote: 5,
  deleteQueued: 4,
  editQueued: 3,
  moveQueued: 2,
  retry: 5,
  rest: 12,
} as const
type Deed = keyof typeof DEEDS

const WATCHED_SHARE = 0.25
const THINK_MS = 400
const REST_MS = 2500

/** Opens one chat after the other and does things in it, until the load is over. */
export async function talk(talker: Talker): Promise<void> {
  while (await talker.mayGoOn()) {
    const chatId = await create(talker)
    if (chatId === null) continue
    const watching = new AbortController()
    const { random } = talker
    if (random.chance(WATCHED_SHARE)) void random.pick(talker.clients).watch(chatId, watching.signal)
    for (let deeds = random.integer(4, 12); deeds > 0 && (await talker.mayGoOn()); deeds--) {
      await sleep(random.between(0, THINK_MS))
      await DO[pickWeighted(random, DEEDS)](talker, chatId)
    }
    watching.abort()
  }
}

async function create(talker: Talker): Promise<string | null> {
  const body = { modelConfigId: talker.random.pick(talker.modelConfigIds) }
  const sent = await say(talker, { kind: 'create', chatId: null, method: 'POST', path: '/v1/chats', body })
  return sent.chatId
}

interface Saying {
  kind: MessageKind
  chatId: string | null
  method: string
  path: string
  body?: Record<string, unknown>
}

async function say(talker: Talker, { kind, chatId, method, path, body }: Saying): Promise<SentMessage> {
  const { ledger } = talker
  const sent: SentMessage = {
    kind,
    text: ledger.newText(),
    chatId,
    outcome: 'unknown',
    messageId: null,
    turnId: null,
    queuedMessageId: null,
  }
  ledger.messages.push(sent)
  const answer = await ask(talker, method, path, { content: sent.text, ...body })
  Object.assign(sent, readSaid(answer), { outcome: answer.outcome })
  if (answer.outcome === 'acknowledged') ledger.acknowledged++
  sent.chatId ??= idOf(answer.body['chat'])
  return sent
}

const readSaid = ({ body }: Answer): Pick<SentMessage, 'messageId' | 'turnId' | 'queuedMessageId'> => ({
  messageId: idOf(body['message']),
  turnId: idOf(body['turn']),
  queuedMessageId: idOf(body['queuedMessage']),
})

const idOf = (thing: unknown): string | null => (thing as { id?: string } | undefined)?.id ?? null

const ask = ({ random, clients }: Talker, method: string, path: string, body?: unknown): Promise<Answer> =>
  random.pick(clients).request(method, path, body)

type Do = (talker: Talker, chatId: string) => Promise<unknown>

const send = (talker: Talker, chatId: string, whenBusy: 'queue' | 'interrupt'): Promise<SentMessage> =>
  say(talker, {
    kind: 'send',
    chatId,
    method: 'POST',
    path: `/v1/chats/${chatId}/messages`,
    body: { whenBusy },
  })

const DO: Record<Deed, Do> = {
  send: (talker, chatId) => send(talker, chatId, 'queue'),
  burst: (talker, chatId) => Promise.all([1, 2, 3].map(() => send(talker, chatId, 'queue'))),
  sendInterrupting: (talker, chatId) => {
    talker.ledger.chat(chatId).stops++
    return send(talker, chatId, 'interrupt')
  },
  edit: async (talker, chatId) => {
    const messageId = await pickFrom(talker, `/v1/chats/${chatId}/messages?limit=200`, 'user')
    if (messageId === null) return
    talker.ledger.chat(chatId).edits++
    const path = `/v1/chats/${chatId}/messages/${messageId}`
    await say(talker, { kind: 'edit', chatId, method: 'PATCH', path })
  },
  interrupt: (talker, chatId) => {
    talker.ledger.chat(chatId).stops++
    return ask(talker, 'POST', `/v1/chats/${chatId}/interrupt`)
  },
  promote: (talker, chatId) =>
    withQueued(talker, chatId, async (queuedId, path) => {
      const record = talker.ledger.chat(chatId)
      record.stops++
      record.movedQueued.add(queuedId)
      await ask(talker, 'POST', `${path}/promote`)
    }),
  deleteQueued: (talker, chatId) =>
    withQueued(talker, chatId, async (queuedId, path) => {
      talker.ledger.chat(chatId).deletedQueued.add(queuedId)
      await ask(talker, 'DELETE', path)
    }),
  editQueued: (talker, chatId) =>
    withQueued(talker, chatId, async (queuedId, path) => {
      const { editedQueued } = talker.ledger.chat(chatId)
      const content = talker.ledger.newText()
      editedQueued.set(queuedId, (editedQueued.get(queuedId) ?? new Set()).add(content))
      await ask(talker, 'PATCH', path, { content })
    }),
  moveQueued: (talker, chatId) =>
    withQueued(talker, chatId, async (queuedId, path) => {
      talker.ledger.chat(chatId).movedQueued.add(queuedId)
      await ask(talker, 'PATCH', path, { position: talker.random.integer(0, 3) })
    }),
  retry: async (talker, chatId) => {
    const chat = await ask(talker, 'GET', `/v1/chats/${chatId}`)
    if (chat.body['status'] !== 'failed') return
    talker.ledger.chat(chatId).retries++
    await ask(talker, 'POST', `/v1/chats/${chatId}/retry`)
  },
  rest: ({ random }) => sleep(random.between(0, REST_MS)),
}

async function withQueued(
  talker: Talker,
  chatId: string,
  work: (queuedId: string, path: string) => Promise<void>,
): Promise<void> {
  const queuedId = await pickFrom(talker, `/v1/chats/${chatId}/queue`)
  if (queuedId !== null) await work(queuedId, `/v1/chats/${chatId}/queue/${queuedId}`)
}

/** One of a list, of this role where one is given; `null` where there is none. */
async function pickFrom(talker: Talker, path: string, role?: string): Promise<string | null> {
  const { body } = await ask(talker, 'GET', path)
  const items = ((body['items'] ?? []) as { id: string; role?: string }[]).filter(
    (item) => role === undefined || item.role === role,
  )
  return items.length === 0 ? null : talker.random.pick(items).id
}
