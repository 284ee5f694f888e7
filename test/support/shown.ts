/** What watchers are shown of an answer before its message. One that is late is shown the message alone: a test that counts on the parts holds the commit. */
import type { Chats } from '../../src/chats/index.ts'
import type { ChatEvent } from '../../src/streams/index.ts'
import type { Watch } from './client.ts'
import { hold, type Gate } from './fake-upstream.ts'
import { ahead } from './tool-bench.ts'

export const isText = (event: ChatEvent): boolean => event.type === 'part' && event.part.type === 'text-delta'

export const textShown = (events: readonly ChatEvent[]): string =>
  events
    .map((event) => (event.type === 'part' && event.part.type === 'text-delta' ? event.part.text : ''))
    .join('')

/** Holds the commit of the next turn that ends with an answer. */
export function holdCommit(chats: Chats): Gate {
  const gate = hold()
  ahead(chats, 'finish', () => gate.opened)
  return gate
}

/** Resolves once parts that are still to come have made the text end so. */
export const untilTextEndsWith = async (watch: Watch, end: string): Promise<void> => {
  await watch.until(() => textShown(watch.events.map(({ event }) => event)).endsWith(end))
}
