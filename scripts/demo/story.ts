import { textOf } from '../../src/protocol/messages.ts'
import type { MessageView, QueuedMessageView } from '../../src/protocol/views.ts'
import type { ChatEvent } from '../../src/streams/index.ts'
import type { Client } from './client.ts'
import { createNarrator, sameMessages, type Narrator } from './narrator.ts'
import { terminal } from './terminal.ts'

/** A message and the client that sent it: whose key its call must name. */
export interface Sent {
  prompt: string
  by: Client
}

const QUESTION = 'Why should a chat have a queue, when most people wait for an answer before they go on?'
const FOLLOW_UP = 'And who pays for this answer?'
const EDITED = 'In one word: why should a chat have a queue?'

type EventOf<Type extends ChatEvent['type']> = ChatEvent & { type: Type }

const isText = (event: ChatEvent): event is EventOf<'part'> =>
  event.type === 'part' && event.part.type === 'text-delta'

const isEndOf =
  (number: number) =>
  (event: ChatEvent): event is EventOf<'turn'> =>
    event.type === 'turn' && event.number === number

const isQueueOf =
  (length: number) =>
  (event: ChatEvent): event is EventOf<'queue'> =>
    event.type === 'queue' && event.queuedMessages.length === length

const isReset = (event: ChatEvent): event is EventOf<'reset'> => event.type === 'reset'

const isIdle = (event: ChatEvent): event is EventOf<'status'> =>
  event.type === 'status' && event.status === 'idle'

/** Plays a chat of two keys of one person, and gives what was sent in the order in which it must reach the provider. */
export async function playChat(laptop: Client, phone: Client): Promise<Sent[]> {
  terminal.heading('1  The laptop asks and watches; the phone sends on while the answer is being written')
  const { chat, message } = await laptop.call<Created>('POST', '/v1/chats', { content: QUESTION })
  const names = new Map([laptop, phone].map(({ keyId, name }) => [keyId, name]))
  const watching = createNarrator(laptop.watch(chat.id), (keyId) => names.get(keyId ?? '') ?? 'no key')
  await watching.until(isText)
  await sendWhileBusy(phone, chat.id)
  await watching.until(isQueueOf(1))
  demandCompleted(await watching.until(isEndOf(1)))
  await watching.until(isQueueOf(0))

  terminal.heading('2  The queued message was promoted; it is answered under the key that sent it')
  demandCompleted(await watching.until(isEndOf(2)))
  await watching.until(isIdle)

  terminal.heading('3  The phone edits the first message: all after it goes, and the turn runs anew')
  await phone.call('PATCH', `/v1/chats/${chat.id}/messages/${message.id}`, { content: EDITED })
  await watching.until(isReset)
  demandCompleted(await watching.until(isEndOf(3)))
  await watching.until(isIdle)
  await compareWithHistory(laptop, chat.id, watching)
  return [
    { prompt: QUESTION, by: laptop },
    { prompt: FOLLOW_UP, by: phone },
    { prompt: EDITED, by: phone },
  ]
}

interface Created {
  chat: { id: string }
  message: MessageView
}

async function sendWhileBusy(phone: Client, chatId: string): Promise<void> {
  const path = `/v1/chats/${chatId}/messages`
  const answer = await phone.call<{ queuedMessage?: QueuedMessageView }>('POST', path, { content: FOLLOW_UP })
  if (answer.queuedMessage === undefined) throw new Error('the message was not queued, expected a busy chat')
}

function demandCompleted({ number, state, error }: EventOf<'turn'>): void {
  if (state !== 'completed')
    throw new Error(`turn ${number} ended as ${state}, expected completed: ${error?.message ?? 'no error'}`)
}

/** What the stream told must be what a newcomer reads. */
async function compareWithHistory(laptop: Client, chatId: string, watching: Narrator): Promise<void> {
  const { items } = await laptop.call<{ items: MessageView[] }>('GET', `/v1/chats/${chatId}/messages`)
  const [first] = items
  if (items.length !== 2 || first === undefined || textOf(first.parts) !== EDITED)
    throw new Error(`the history holds ${items.length} messages, expected the edited one and its answer`)
  if (!sameMessages(items, watching.messages()))
    throw new Error('the history is not what the event stream told')
  terminal.tell('history', `${items.length} messages, the same that were streamed`)
}
