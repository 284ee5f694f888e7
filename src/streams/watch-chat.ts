import type {
  ChatChanges,
  ChatView,
  MessageView,
  RequiredAction,
  RetryState,
  TurnView,
} from '../protocol/views.ts'
import { isTurnmillError } from '../protocol/errors.ts'
import { formatEventId } from './cursor.ts'
import type { ChatEvent, PlacedEvent } from './events.ts'
import { createMailbox, type Mailbox } from './mailbox.ts'
import type { LoggedPart, LogNews, PartLog } from './part-log.ts'
import { Preview } from './preview.ts'

export interface WatchOptions {
  chatId: string
  /** The watcher's key: the stream ends soon after it can no longer be used. */
  apiKeyId: string
  log: Pick<PartLog, 'read' | 'subscribe'>
  /** What changed in the chat since a version; `null` where it is gone. */
  readChanges(since: number): Promise<ChatChanges | null>
  /** Where the watcher is registered for the look at Postgres that no lost notification can prevent. */
  registry: WatchRegistry
  signal: AbortSignal
}

/** Whoever watches a chat is told `changed` when its snapshot version is not the one given here. */
export interface WatchRegistry {
  add(chatId: string, watcher: Watcher): () => void
}

export interface Watcher {
  apiKeyId: string
  seenVersion(): number
  tell(news: LogNews): void
  end(): void
}

const ENDED = new Set(['completed', 'failed', 'interrupted', 'superseded'])

/**
 * Everything a watcher of a chat is told, from its first message to now and then as it happens. Committed state comes
 * from Postgres, parts come from the log; the log's tail is noted before Postgres is read, so that nothing falls
 * between the two. Ends when `signal` aborts, the key can no longer be used or the chat is gone.
 */
export async function* watchChat(options: WatchOptions): AsyncGenerator<PlacedEvent, void, undefined> {
  const { apiKeyId, chatId, log, registry } = options
  const ended = new AbortController()
  const mailbox = createMailbox<LogNews>(AbortSignal.any([options.signal, ended.signal]))
  const watch = new ChatWatch(options)
  const unregister = registry.add(chatId, {
    apiKeyId,
    seenVersion: () => watch.version,
    tell: mailbox.put,
    end: () => ended.abort(),
  })
  let unsubscribe: (() => void) | undefined
  try {
    unsubscribe = await log.subscribe(chatId, mailbox.put)
    const logged = await watch.readLog()
    yield* watch.catchUp()
    yield* watch.showParts(logged)
    yield* follow(watch, mailbox)
  } finally {
    unsubscribe?.()
    unregister()
  }
}

async function* follow(watch: ChatWatch, mailbox: Mailbox<LogNews>): AsyncGenerator<PlacedEvent> {
  for await (const news of mailbox.batches()) {
    for (const one of news) if (one.type === 'parts') yield* watch.showNews(one.parts)
    if (news.some((one) => one.type === 'changed')) yield* catchUpWhenPossible(watch)
    if (watch.gone) return
  }
}

/** While Postgres is away there is nothing to tell; the registry says `changed` again once it answers. */
async function* catchUpWhenPossible(watch: ChatWatch): AsyncGenerator<PlacedEvent> {
  try {
    yield* watch.catchUp()
  } catch (error) {
    if (!isTurnmillError(error) || error.code !== 'database_unavailable') throw error
  }
}

/** One watcher's view of one chat. */
class ChatWatch {
  readonly #options: WatchOptions
  readonly #preview = new Preview()
  /** As it was told last. */
  #chat: ChatView | null = null
  #asked = 'null'
  /** The failed attempt that was told last. */
  #toldRetry = ''
  gone = false

  constructor(options: WatchOptions) {
    this.#options = options
  }

  get version(): number {
    return this.#chat?.snapshotVersion ?? 0
  }

  /** What the log holds; nothing while it is away. */
  async readLog(): Promise<LoggedPart[]> {
    return this.#options.log.read(this.#options.chatId).catch(() => [])
  }

  /** Tells what Postgres holds that the watcher has not seen. */
  async *catchUp(): AsyncGenerator<PlacedEvent> {
    const before = this.#chat
    const changes = await this.#options.readChanges(this.version)
    this.gone = changes === null
    if (changes === null || changes.chat.snapshotVersion === before?.snapshotVersion) return
    if (before !== null && before.historyVersion !== changes.chat.historyVersion) yield* this.#startOver()
    else yield* this.#tellChanges(before, changes)
  }

  /** Messages were taken away: the watcher drops all it has and gets what remains. */
  async *#startOver(): AsyncGenerator<PlacedEvent> {
    const changes = await this.#options.readChanges(0)
    this.gone = changes === null
    if (changes === null) return
    this.#preview.drop()
    yield this.#place({ type: 'reset', scope: 'history' }, changes.chat.snapshotVersion)
    const known = this.version
    yield* this.#tellChanges(this.#chat, {
      ...changes,
      turns: changes.turns.filter((turn) => turn.revision > known),
    })
  }

  *#tellChanges(before: ChatView | null, changes: ChatChanges): Generator<PlacedEvent> {
    this.#chat = changes.chat
    for (const { message, turnNumber } of changes.messages) yield this.#tellMessage(message, turnNumber)
    for (const turn of changes.turns) yield* this.#tellTurn(turn, before !== null)
    const { chat, queue, action } = changes
    if (before?.status !== chat.status || before.activeTurnId !== chat.activeTurnId)
      yield this.#tellStatus(chat)
    yield* this.#tellAction(action)
    if (before?.queueVersion !== chat.queueVersion)
      yield this.#place({ type: 'queue', queuedMessages: queue })
  }

  #tellStatus({ status, activeTurnId, lastError }: ChatView): PlacedEvent {
    return this.#place({ type: 'status', status, activeTurnId, error: lastError })
  }

  /** A turn may ask again before the watcher looks: what it asks for counts, not that it asks. */
  *#tellAction(action: RequiredAction | null): Generator<PlacedEvent> {
    const asked = JSON.stringify(action)
    if (action !== null && asked !== this.#asked) yield this.#place({ type: 'action_required', ...action })
    this.#asked = asked
  }

  #tellMessage(message: MessageView, turnNumber: number | null): PlacedEvent {
    if (turnNumber !== null && message.role === 'assistant') this.#preview.committed(turnNumber, message.step)
    return this.#place({ type: 'message', message }, message.revision)
  }

  /** Turns that ended before the watcher came are history, not news. */
  *#tellTurn(turn: TurnView, news: boolean): Generator<PlacedEvent> {
    if (turn.retry !== null) yield* this.#tellRetry(turn, turn.retry)
    if (!ENDED.has(turn.state)) return
    if (this.#preview.ended(turn.number)) yield this.#place({ type: 'reset', scope: 'preview' })
    const { id: turnId, number, state, usage, error } = turn
    if (news) yield this.#place({ type: 'turn', turnId, number, state, usage, error })
  }

  /** Told once per failed attempt, and not once the watcher has seen parts of the next. */
  *#tellRetry({ id: turnId, number, epoch }: TurnView, retry: RetryState): Generator<PlacedEvent> {
    const { step, attempts } = retry
    const overtaken = this.#preview.overtakes({ turn: number, step, epoch, attempt: attempts })
    const attempt = `${turnId} ${step} ${attempts}`
    if (overtaken || this.#toldRetry === attempt) return
    this.#toldRetry = attempt
    if (this.#preview.drop()) yield this.#place({ type: 'reset', scope: 'preview' })
    yield this.#place({ type: 'retry', turnId, number, ...retry })
  }

  /** Parts as they were published; where some are missing, the log may still have them. */
  async *showNews(parts: LoggedPart[]): AsyncGenerator<PlacedEvent> {
    const missing = parts.length === 0 || parts.some((part) => this.#preview.judge(part) === 'gap')
    const first = parts[0]
    if (missing && (first === undefined || this.#preview.judge(first) !== 'drop'))
      yield* this.showParts(await this.readLog())
    yield* this.showParts(parts)
  }

  *showParts(parts: readonly LoggedPart[]): Generator<PlacedEvent> {
    for (const part of parts) {
      const verdict = this.#preview.judge(part)
      if (verdict === 'gap' && this.#preview.withdraw(part))
        yield this.#place({ type: 'reset', scope: 'preview' })
      if (verdict === 'reset-and-deliver') yield this.#place({ type: 'reset', scope: 'preview' })
      if (verdict === 'deliver' || verdict === 'reset-and-deliver') yield this.#showPart(part)
    }
  }

  #showPart(part: LoggedPart): PlacedEvent {
    this.#preview.delivered(part)
    const event: ChatEvent = { type: 'part', turn: part.turn, step: part.step, part: part.part }
    return this.#place(event, part.snapshotVersion)
  }

  #place(event: ChatEvent, version = this.version): PlacedEvent {
    return { id: formatEventId(version, this.#preview.cursor), event }
  }
}
