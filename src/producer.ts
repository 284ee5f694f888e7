import type { Chats } from './chats/index.ts'

/** Accepts messages without HTTP: what a host application calls in its own process. Every call needs an initiator. */
export type Producer = Pick<Chats, 'create' | 'send' | 'edit'>

/** Commits and enqueues just as the API does. */
export const createProducer = ({ chats }: { chats: Chats }): Producer => ({
  create: chats.create,
  send: chats.send,
  edit: chats.edit,
})
