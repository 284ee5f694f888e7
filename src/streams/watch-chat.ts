import type {
  ChatChanges,
  ChatView,
  MessageView,
  RequiredAction,
  RetryState,
  TurnView,
} from '../protocol/views.ts'
import { isTurnmillError } from '../protocol/errors.ts'
import { formatEventId, type Cursor } from './cursor.ts'
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
  /** Whether messages were taken out of its history since a version. */
  isRewritten(since: number): Promise<boolean>
  /** Where a watcher that comes back left off; `null` for one that has seen nothing. */
  after: Cursor | null
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

/** What of a chat is told as its status, once one of these has changed. */
const STATUS = ['status', 'activeTurnId', 'title', 'statusLabel'] as const

const isToldAnew = (before: ChatView, chat: ChatView): boolean =>
  STATUS.some((field) => before[field] !== chat[field]) ||
  before.titleError?.message !== chat.titleError?.message

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
  readonly #preview: Preview
  /** As it was told last. */
  #chat: ChatView | null = null
  /** All of the committed state up to this version has been told. */
  #told: number
  #asked = 'null'
  /** The failed attempt that was told last. */
  #toldRetry = ''
  gone = false

  constructor(options: WatchOptions) {
    this.#options = options
    this.#preview = new Preview(options.after?.position)
    this.#told = options.after?.snapshotVersion ?? 0
  }

  get version(): number {
    return this.#told
  }

  /** What the log holds; nothing while it is away. */
  async readLog(): Promise<LoggedPart[]> {
    return this.#options.log.read(this.#options.chatId).catch(() => [])
  }

  /** Tells what Postgres holds that the watcher has not seen. */
  async *catchUp(): AsyncGenerator<PlacedEvent> {
    const changes = await this.#options.readChanges(this.version)
    this.gone = changes === null
    if (changes === null || changes.chat.snapshotVersion === this.#chat?.snapshotVersion) return
    if (await this.#lacksMessages(changes.chat)) yield* this.#startOver()
    else yield* this.#tellChanges(changes)
  }

  /** Whether the watcher holds messages that the chat has no more. */
  async #lacksMessages({ historyVersion }: ChatView): Promise<boolean> {
    if (this.#chat !== null) return this.#chat.historyVersion !== historyVersion
    return this.version > 0 && this.#options.isRewritten(this.version)
  }

  /** Messages were taken away: the watcher drops all it has and gets what remains. */
  async *#startOver(): AsyncGenerator<PlacedEvent> {
    const changes = await this.#options.readChanges(0)
    this.gone = changes === null
    if (changes === null) return
    this.#preview.drop()
    const known = this.version
    // Whoever leaves before all of it was told has to start over again.
    this.#told = 0
    yield this.#place({ type: 'reset', scope: 'history' })
    yield* this.#tellChanges({
      ...changes,
      turns: changes.turns.filter((turn) => turn.revision > known),
    })
  }

  *#tellChanges({ chat, messages, turns, queue, action }: ChatChanges): Generator<PlacedEvent> {
    const before = this.#chat
    const isNews = this.#chat !== null || this.#options.after !== null
    this.#chat = chat
    const told = versionsTold([...messages.map(({ message }) => message), ...turns])
    const advance = (): void => void (this.#told = Math.max(this.#told, told.shift() ?? 0))
    for (const { message, turnNumber } of messages) {
      advance()
      yield this.#tellMessage(message, turnNumber)
    }
    for (const turn of turns) {
      advance()
      yield* this.#tellTurn(turn, isNews)
    }
    this.#told = chat.snapshotVersion
    if (before === null || isToldAnew(before, chat)) yield this.#tellStatus(chat)
    yield* this.#tellAction(action)
    if (before?.queueVersion !== chat.queueVersion)
      yield this.#place({ type: 'queue', queuedMessages: queue })
  }

  #tellStatus(chat: ChatView): PlacedEvent {
    const { status, activeTurnId, lastError: error, title, titleError, statusLabel } = chat
    return this.#place({ type: 'status', status, activeTurnId, error, title, titleError, statusLabel })
  }

  /** A turn may ask again before the watcher looks: what it asks for counts, not that it asks. */
  *#tellAction(action: RequiredAction | null): Generator<PlacedEvent> {
    const asked = JSON.stringify(action)
    if (action !== null && asked !== this.#asked) yield this.#place({ type: 'action_required', ...action })
    this.#asked = asked
  }

  #tellMessage(message: MessageView, turnNumber: number | null): PlacedEvent {
    if (turnNumber !== null && message.role === 'assistant') this.#preview.committed(turnNumber, message.step)
    return this.#place({ type: 'message', message })
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
    return this.#place(event)
  }

  #place(event: ChatEvent): PlacedEvent {
    return { id: formatEventId(this.#told, this.#preview.cursor), event }
  }
}

/**
 * Up to which version everything has been told once each of these has, in the order in which they are: a message that
 * was changed late may come before one that was written earlier.
 */
function versionsTold(changed: readonly { revision: number }[]): number[] {
  let later = Infinity
  return changed
    .map(({ revision }) => revision)
    .reverse()
    .map((revision) => {
      const told = Math.min(revision, later - 1)
      later = Math.min(later, revision)
      return told
    })
    .reverse()
}
