import { createParser } from 'eventsource-parser'

/** How far an event stream has come with the answer to a request, and from where it can be resumed. */
export interface AnswerProgress {
  read(chunk: Uint8Array): void
  isAnswered(): boolean
  /** The last event that had an id; `null` where none had. */
  lastEventId(): string | null
  /** How long the server would have us wait before we resume, in ms. */
  retryMs(): number | null
}

/** @param answers whether a message is the answer. */
export function createAnswerProgress(answers: (message: string) => boolean): AnswerProgress {
  let isAnswered = false
  let lastEventId: string | null = null
  let retryMs: number | null = null
  const decoder = new TextDecoder()
  const parser = createParser({
    onEvent: ({ id, event = 'message', data }) => {
      if (id !== undefined && id !== '') lastEventId = id
      isAnswered ||= event === 'message' && data !== '' && answers(data)
    },
    onRetry: (ms) => {
      retryMs = ms
    },
  })
  return {
    read: (chunk) => parser.feed(decoder.decode(chunk, { stream: true })),
    isAnswered: () => isAnswered,
    lastEventId: () => lastEventId,
    retryMs: () => retryMs,
  }
}
