/** The promises, each as a function from the facts to what breaks it. Numbered as in the design. */
import { TURN_MOVES } from '../../src/chats/states.ts'
import type { ChatRecord, SentMessage } from './ledger.ts'
import type { Facts, MessageFacts, TurnFacts } from './facts.ts'
import type { TurnChange } from './turn-log.ts'
import { answerText, type JournalEntry, type ReportedTokens } from './provider-plan.ts'

export interface Invariant {
  name: string
  promise: string
  /** What breaks it, with the ids that a person needs to look further. */
  violations(facts: Facts): string[]
}

const TERMINAL: ReadonlySet<string> = new Set(['completed', 'failed', 'interrupted', 'superseded'])

const one = (turn: TurnFacts): string =>
  `turn ${turn.id} (number ${turn.number} of chat ${turn.chatId}, ${turn.state}, epoch ${turn.epoch})`

const when = (broken: boolean, text: string): string[] => (broken ? [text] : [])

const answersOf = (facts: Facts): Map<string | null, MessageFacts[]> =>
  Map.groupBy(
    facts.messages.filter(({ role }) => role === 'assistant'),
    ({ turnId }) => turnId,
  )

// --- I1

const NO_RECORD: ChatRecord = {
  edits: 0,
  stops: 0,
  retries: 0,
  deletedQueued: new Set(),
  movedQueued: new Set(),
  editedQueued: new Map(),
}

const recordOf = ({ ledger }: Facts, chatId: string): ChatRecord => ledger.chats.get(chatId) ?? NO_RECORD

function lostMessages(facts: Facts): string[] {
  const messages = new Map(facts.messages.map((message) => [message.id, message]))
  const promoted = Map.groupBy(facts.messages, ({ queuedMessageId }) => queuedMessageId)
  return facts.ledger.messages
    .filter(({ outcome }) => outcome === 'acknowledged')
    .flatMap((sent) => {
      const fate =
        sent.queuedMessageId === null
          ? fateOfStarted(facts, sent, messages)
          : fateOfQueued(facts, sent.queuedMessageId, promoted)
      return fate === null ? [] : [`"${sent.text}" (${sent.kind} in chat ${sent.chatId}): ${fate}`]
    })
}

/** `null` where all is well. */
function fateOfStarted(
  facts: Facts,
  sent: SentMessage,
  messages: ReadonlyMap<string, MessageFacts>,
): string | null {
  const message = messages.get(sent.messageId ?? '')
  const turn = facts.turns.get(sent.turnId ?? '')
  if (message === undefined) return `message ${sent.messageId} is not there`
  if (message.text !== sent.text) return `message ${message.id} says "${message.text}"`
  if (turn === undefined) return `turn ${sent.turnId} is not there`
  if (message.deleted && recordOf(facts, turn.chatId).edits === 0)
    return `message ${message.id} is gone unasked`
  return TERMINAL.has(turn.state) ? null : `${one(turn)} has not ended`
}

function fateOfQueued(
  facts: Facts,
  queuedId: string,
  promoted: ReadonlyMap<string | null, MessageFacts[]>,
): string | null {
  const queued = facts.queued.get(queuedId)
  if (queued === undefined) return `queued message ${queuedId} is not there`
  const record = recordOf(facts, queued.chatId)
  const found = promoted.get(queuedId) ?? []
  if (found.length > (queued.state === 'promoted' ? 1 : 0))
    return `queued message ${queuedId} is ${queued.state} and ${found.length} times in history`
  switch (queued.state) {
    case 'queued':
      return facts.chats.get(queued.chatId)?.status === 'failed'
        ? null
        : `queued message ${queuedId} was left behind`
    case 'deleted':
      return record.deletedQueued.has(queuedId) ? null : `queued message ${queuedId} was deleted unasked`
    case 'superseded':
      return record.edits > 0 ? null : `queued message ${queuedId} was superseded unasked`
    case 'promoted':
      return fateOfPromoted(facts, queuedId, found[0])
  }
}

function fateOfPromoted(facts: Facts, queuedId: string, message: MessageFacts | undefined): string | null {
  const turn = facts.turns.get(message?.turnId ?? '')
  if (message === undefined || turn === undefined) return `queued message ${queuedId} was promoted to nowhere`
  return TERMINAL.has(turn.state) ? null : `${one(turn)} has not ended`
}

function unaskedEnds(facts: Facts): string[] {
  return [...facts.turns.values()].flatMap((turn) => {
    const { edits, stops } = recordOf(facts, turn.chatId)
    return [
      ...when(turn.state === 'interrupted' && stops === 0, `${one(turn)} was interrupted unasked`),
      ...when(turn.state === 'superseded' && edits === 0, `${one(turn)} was superseded unasked`),
      ...when(
        turn.error?.code === 'turn_failed' || turn.error?.code === 'internal',
        `${one(turn)} failed on a bug: ${turn.error?.message}`,
      ),
    ]
  })
}

function doubledMessages(facts: Facts): string[] {
  const edited = new Set([...facts.ledger.chats.values()].flatMap((chat) => [...chat.editedQueued.keys()]))
  const said = [
    ...facts.messages.filter(({ role, queuedMessageId }) => role === 'user' && queuedMessageId === null),
    ...[...facts.queued.values()].filter(({ id }) => !edited.has(id)),
  ]
  const texts = Map.groupBy(said, ({ text }) => text)
  return [...texts].flatMap(([text, found]) =>
    when(found.length > 1, `"${text}" was taken ${found.length} times, in chat ${found[0]?.chatId}`),
  )
}

// --- I2 to I5

function doubledAnswers(facts: Facts): string[] {
  return [...answersOf(facts)].flatMap(([turnId, answers]) => {
    const turn = facts.turns.get(turnId ?? '')
    if (turn === undefined) return [`an answer belongs to no turn: message ${answers[0]?.id}`]
    return [
      ...when(answers.length > 1, `${one(turn)} has ${answers.length} answers and no tools`),
      ...when(!['completed', 'interrupted'].includes(turn.state), `${one(turn)} has an answer`),
    ]
  })
}

const missingAnswers = (facts: Facts): string[] => {
  const answers = answersOf(facts)
  return [...facts.turns.values()]
    .filter((turn) => turn.state === 'completed' && !answers.has(turn.id))
    .map((turn) => `${one(turn)} has no answer`)
}

function activeAtOnce(facts: Facts): string[] {
  const changes = [...facts.log.values()].flat().sort((a, b) => a.at - b.at)
  const active = new Map<string, Set<string>>()
  const broken: string[] = []
  for (const { turnId, chatId, to } of changes) {
    const now = active.get(chatId) ?? new Set()
    active.set(chatId, now)
    if (TERMINAL.has(to)) now.delete(turnId)
    else if (to === 'running') now.add(turnId)
    if (now.size > 1) broken.push(`chat ${chatId} had ${now.size} running turns: ${[...now].join(', ')}`)
  }
  const atRest = [...facts.turns.values()].filter(({ state }) => !TERMINAL.has(state))
  return [...broken, ...atRest.map((turn) => `${one(turn)} is active at rest`)]
}

function wrongOrder(facts: Facts): string[] {
  const numberOf = (message: MessageFacts): number => facts.turns.get(message.turnId ?? '')?.number ?? 0
  const byChat = Map.groupBy(facts.messages, ({ chatId }) => chatId)
  return [...byChat].flatMap(([chatId, messages]) => {
    const numbers = messages.map(numberOf)
    const unmoved = messages.filter(
      ({ queuedMessageId }) =>
        queuedMessageId !== null && !recordOf(facts, chatId).movedQueued.has(queuedMessageId),
    )
    return [
      ...when(!isRising(numbers), `the messages of chat ${chatId} follow turns ${numbers.join(' ')}`),
      ...when(
        !isRising(unmoved.map(({ queuedMessageId }) => Number(queuedMessageId))),
        `chat ${chatId} promoted ${unmoved.map(({ queuedMessageId }) => queuedMessageId).join(' ')}`,
      ),
    ]
  })
}

const isRising = (numbers: readonly number[]): boolean =>
  numbers.every((number, index) => index === 0 || number >= (numbers[index - 1] ?? 0))

function illegalMoves(facts: Facts): string[] {
  return [...facts.log].flatMap(([turnId, changes]) =>
    changes.flatMap(({ from, to, by, epoch }, index) => {
      if (from === null) return when(index > 0, `turn ${turnId} was made twice`)
      const legal = Object.values(TURN_MOVES[from]).some((landings) => landings.includes(to))
      const former = changes[index - 1]
      return [
        ...when(!legal, `turn ${turnId} went from ${from} to ${to} (by ${by}, epoch ${epoch})`),
        ...when(former?.to !== from, `turn ${turnId} was ${former?.to} and then ${from}`),
        ...when(epoch < (former?.epoch ?? 0), `turn ${turnId} went back to epoch ${epoch}`),
      ]
    }),
  )
}

/** Moves that only the worker of the claim may make. Clients make the others, and worse than that no zombie can do. */
const WORKERS_MOVES: Readonly<Record<string, readonly string[]>> = {
  running: ['completed', 'failed', 'pending', 'requires_action', 'waiting'],
  interrupting: ['interrupted', 'failed'],
}

function writesOfOthers(facts: Facts): string[] {
  return [...facts.log].flatMap(([turnId, changes]) =>
    changes.flatMap(({ from, to, by, epoch }) => {
      if (from === null || WORKERS_MOVES[from]?.includes(to) !== true) return []
      const claim = changes.find((change) => change.epoch === epoch && change.to !== 'pending')
      return when(
        claim?.by !== by,
        `${by} made turn ${turnId} ${to}, whose epoch ${epoch} ${claim?.by} had claimed`,
      )
    }),
  )
}

// --- I6 to I8

const misattributed = ({ journal, turns }: Facts): string[] =>
  journal.flatMap(({ number, turnId, keyId }) => {
    const turn = turns.get(turnId ?? '')
    if (turn === undefined) return [`request ${number} named turn ${turnId}, which is not there`]
    return when(
      turn.apiKeyId !== keyId,
      `request ${number} of ${one(turn)} named key ${keyId}, not ${turn.apiKeyId}`,
    )
  })

function strandedQueues(facts: Facts): string[] {
  const waiting = Map.groupBy(
    [...facts.queued.values()].filter(({ state }) => state === 'queued'),
    ({ chatId }) => chatId,
  )
  return [...waiting].flatMap(([chatId, queued]) => {
    const chat = facts.chats.get(chatId)
    const fine = chat?.archived === true || chat?.status === 'failed' || chat?.activeTurnId !== null
    return when(!fine, `chat ${chatId} is ${chat?.status} with ${queued.length} queued messages`)
  })
}

const wrongStatuses = (facts: Facts): string[] =>
  [...facts.chats.values()].flatMap(({ id, status, lastTurnId }) => {
    const last = facts.turns.get(lastTurnId ?? '')
    const expected = last?.state === 'failed' ? 'failed' : 'idle'
    return when(status !== expected, `chat ${id} is ${status} after its last turn was ${last?.state}`)
  })

const openJobs = (facts: Facts): string[] => facts.openJobs.map((job) => `job ${job} is still on the queue`)

// --- I11 and the text

const attemptsOf = ({ journal }: Facts): Map<string | null, JournalEntry[]> =>
  Map.groupBy(journal, ({ turnId }) => turnId)

/** The attempt whose answer was committed, if there is exactly one. */
const committedAttempt = (text: string, attempts: readonly JournalEntry[]): JournalEntry | undefined =>
  attempts.find(({ number, complete }) => complete && answerText(number) === text)

function wrongTexts(facts: Facts): string[] {
  const attempts = attemptsOf(facts)
  const asked = new Map(facts.messages.map((message) => [message.id, message.text]))
  return [...answersOf(facts)].flatMap(([turnId, answers]) => {
    const turn = facts.turns.get(turnId ?? '')
    const text = answers[0]?.text ?? ''
    const made = attempts.get(turnId) ?? []
    if (turn?.state === 'interrupted')
      return when(
        !made.some(({ number }) => answerText(number).startsWith(text)),
        `${one(turn)} says "${text}"`,
      )
    if (turn?.state !== 'completed') return []
    const committed = committedAttempt(text, made)
    if (committed === undefined) return [`${one(turn)} says what the provider did not: "${text}"`]
    // Unanswered messages before it may have been joined to it: some wire formats want the roles to take turns.
    const question = asked.get(turn.userMessageId ?? '') ?? ''
    return when(
      !committed.asked.endsWith(question),
      `${one(turn)} asked "${committed.asked}", not "${question}"`,
    )
  })
}

/** What was written just before the line was cut, by either side, may not have been read. */
const IN_FLIGHT_MS = 250

/** How long a worker on a busy machine takes from breaking a call off to having given its turn back. */
const GIVING_BACK_MS = 1000

/**
 * Whether an answer ended just when the worker that was to read it gave the turn back. A whole answer that was not
 * committed may have been let go of long before: the turn is given back once Postgres is there again.
 */
const wasGivenBack = (
  { startedAt, endedAt, complete }: JournalEntry,
  changes: readonly TurnChange[],
): boolean =>
  changes.some(
    ({ from, to, at }) =>
      from === 'running' &&
      to === 'pending' &&
      endedAt !== null &&
      at > startedAt &&
      (complete || endedAt > at - GIVING_BACK_MS) &&
      endedAt < at + IN_FLIGHT_MS,
  )

const wasRead = (entry: JournalEntry, changes: readonly TurnChange[]): boolean => {
  const { closedEarly, openedAt, endedAt } = entry
  const inFlight = closedEarly && (endedAt ?? 0) - (openedAt ?? 0) < IN_FLIGHT_MS
  return !inFlight && !wasGivenBack(entry, changes)
}

/**
 * The answer is counted as its provider reported it, and every failed attempt as the gateway's books have it. What dead
 * workers knew may be lacking, and what nobody read.
 */
function wrongUsage(facts: Facts): string[] {
  const attempts = attemptsOf(facts)
  const answers = answersOf(facts)
  return [...facts.turns.values()].flatMap((turn) => {
    if (turn.state !== 'completed') return []
    const made = attempts.get(turn.id) ?? []
    const committed = committedAttempt(answers.get(turn.id)?.[0]?.text ?? '', made)
    const reported = committed?.reported ?? null
    if (reported === null) return []
    const calls = facts.calls.get(turn.id) ?? []
    // A call that its worker gave up before it was sent is in the books, and not in the provider's journal.
    const entryOf = (place: number): JournalEntry | undefined =>
      calls.length === made.length ? made[place] : undefined
    const isSure = (entry: JournalEntry | undefined): boolean =>
      entry !== undefined && turn.takeovers === 0 && wasRead(entry, facts.log.get(turn.id) ?? [])
    // Not there where its worker was killed between the commit and the settlement.
    const answer = calls.findIndex((call) => isEqual(call, reported))
    const others = calls.flatMap((tokens, place) =>
      place === answer ? [] : [{ tokens, sure: answer !== -1 && isSure(entryOf(place)) }],
    )
    return when(
      !sums(reported, others).some((sum) => isEqual(sum, turn)),
      `${one(turn)} used ${turn.inputTokens} and ${turn.outputTokens} tokens, of ${made.map(describeEntry).join(', ')}, which the books have as ${calls.map(describeTokens).join(', ')}; it was ${historyOf(facts, turn)}`,
    )
  })
}

type Tokens = Pick<TurnFacts, 'inputTokens' | 'outputTokens'>

const isEqual = (one: Tokens, other: Tokens | null): boolean =>
  one.inputTokens === other?.inputTokens && one.outputTokens === other.outputTokens

const describeTokens = ({ inputTokens, outputTokens }: Tokens): string => `${inputTokens} and ${outputTokens}`

const historyOf = ({ log }: Facts, { id }: TurnFacts): string =>
  (log.get(id) ?? [])
    .map(
      ({ to, by, epoch, at }) =>
        `${to} by ${by} under epoch ${epoch} at ${new Date(at).toISOString().slice(11)}`,
    )
    .join(', ')

const describeEntry = ({ number, plan, startedAt, reported, closedEarly }: JournalEntry): string =>
  `request ${number} (${plan}, ${new Date(startedAt).toISOString().slice(11)}${closedEarly ? ', left early' : ''}): ${reported === null ? 'none' : describeTokens(reported)}`

function sums(
  committed: ReportedTokens,
  others: readonly { tokens: ReportedTokens; sure: boolean }[],
): ReportedTokens[] {
  return others.reduce(
    (found, { tokens, sure }) => {
      const added = found.map((sum) => add(sum, tokens))
      return sure ? added : [...found, ...added]
    },
    [committed],
  )
}

const add = (sum: ReportedTokens, tokens: ReportedTokens): ReportedTokens => ({
  inputTokens: sum.inputTokens + tokens.inputTokens,
  outputTokens: sum.outputTokens + tokens.outputTokens,
})

export const INVARIANTS: readonly Invariant[] = [
  { name: 'I1', promise: 'every acknowledged message is in one terminal state', violations: lostMessages },
  { name: 'I1 once', promise: 'no message was taken twice', violations: doubledMessages },
  {
    name: 'I1 unasked',
    promise: 'nothing was stopped, superseded or failed by itself',
    violations: unaskedEnds,
  },
  { name: 'I2', promise: 'one answer per turn, and none of a turn that failed', violations: doubledAnswers },
  { name: 'I2 answered', promise: 'every completed turn has its answer', violations: missingAnswers },
  { name: 'I3', promise: 'one turn of a chat at a time, none at rest', violations: activeAtOnce },
  {
    name: 'I3 fenced',
    promise: 'a turn was ended and given back by the worker that held it',
    violations: writesOfOthers,
  },
  { name: 'I4', promise: 'messages follow their turns, turns follow the queue', violations: wrongOrder },
  { name: 'I5', promise: 'turns moved as the table allows, terminal ones did not', violations: illegalMoves },
  { name: 'I6', promise: 'every request to the provider named its turn’s key', violations: misattributed },
  { name: 'I7', promise: 'no chat but a failed one has a queue and no turn', violations: strandedQueues },
  { name: 'I7 status', promise: 'every chat shows what its last turn was', violations: wrongStatuses },
  { name: 'I8', promise: 'the queue is empty at rest', violations: openJobs },
  {
    name: 'I11',
    promise: 'usage is what the provider reported, or the books estimate',
    violations: wrongUsage,
  },
  {
    name: 'text',
    promise: 'every answer is one of the provider’s, whole, to its question',
    violations: wrongTexts,
  },
]
