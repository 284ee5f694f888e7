import { isDeepStrictEqual } from 'node:util'
import { textOf } from '../../src/protocol/messages.ts'
import type { MessageView } from '../../src/protocol/views.ts'
import type { ChatEvent } from '../../src/streams/index.ts'
import { terminal, type Paragraph } from './terminal.ts'

export interface Narrator {
  /** Shows events as they happen, up to the first that is looked for, and gives that one. */
  until<Wanted extends ChatEvent>(wanted: (event: ChatEvent) => event is Wanted): Promise<Wanted>
  /** What a watcher has in hand after all these events: the messages, oldest first. */
  messages(): readonly MessageView[]
}

/**
 * Shows a chat's events to whoever runs the demo, and keeps the chat as a client would from nothing but these events.
 *
 * @param nameOf the name of an API key, by its ID.
 */
export function createNarrator(
  events: AsyncGenerator<ChatEvent, void, undefined>,
  nameOf: (keyId: string | null) => string,
): Narrator {
  let messages: MessageView[] = []
  let preview = ''
  let answer: Paragraph | null = null

  function endAnswer(): void {
    answer?.end()
    answer = null
  }

  function showPart({ part }: ChatEvent & { type: 'part' }): void {
    if (part.type !== 'text-delta') return
    answer ??= terminal.paragraph(preview === '' ? 'answer' : '…')
    answer.write(part.text)
    preview += part.text
  }

  function showMessage({ message }: ChatEvent & { type: 'message' }): void {
    messages.push(message)
    if (message.role === 'user')
      terminal.tell('message', `“${textOf(message.parts)}” (${nameOf(message.apiKeyId)})`)
    else showCommitted(textOf(message.parts))
  }

  /** The preview is only a preview: the message replaces it. They must be the same all the same. */
  function showCommitted(text: string): void {
    if (preview !== '' && preview !== text)
      throw new Error(`the committed answer is not what was streamed: “${text}”, streamed “${preview}”`)
    terminal.tell(
      'committed',
      `${text.length} characters${preview === '' ? '' : ', the same that were streamed'}`,
    )
    preview = ''
  }

  function showReset(scope: 'preview' | 'history'): void {
    preview = ''
    if (scope === 'history') messages = []
    terminal.tell(
      'reset',
      scope === 'history' ? 'forget all messages; what remains follows' : 'forget the answer so far',
    )
  }

  function show(event: ChatEvent): void {
    if (event.type !== 'part') endAnswer()
    if (event.type === 'part') showPart(event)
    else if (event.type === 'message') showMessage(event)
    else if (event.type === 'reset') showReset(event.scope)
    else terminal.tell(event.type, describe(event, nameOf))
  }

  return {
    messages: () => messages,
    until: async (wanted) => {
      for (;;) {
        const next = await events.next()
        if (next.done === true) throw new Error('the event stream ended before the story did')
        show(next.value)
        if (wanted(next.value)) return next.value
      }
    },
  }
}

type StateEvent = Exclude<ChatEvent, { type: 'part' | 'message' | 'reset' }>

function describe(event: StateEvent, nameOf: (keyId: string | null) => string): string {
  if (event.type === 'status') return `the chat is ${event.status}`
  if (event.type === 'queue')
    return event.queuedMessages.length === 0
      ? 'empty'
      : event.queuedMessages
          .map(({ parts, apiKeyId }) => `“${textOf(parts)}” waits (${nameOf(apiKeyId)})`)
          .join(', ')
  if (event.type === 'action_required')
    return `waits for ${event.calls.map(({ toolName }) => toolName).join(', ')} until ${event.deadline}`
  if (event.type === 'retry')
    return `number ${event.number} after ${event.attempts} failed attempts (${event.error.code}), at ${event.retryAt}`
  const spent =
    event.usage === null ? '' : `: ${event.usage.inputTokens} tokens in, ${event.usage.outputTokens} out`
  return `number ${event.number} ${event.state}${spent}`
}

/** Whether two clients hold the same messages. */
export const sameMessages = (a: readonly MessageView[], b: readonly MessageView[]): boolean =>
  isDeepStrictEqual(a, b)
