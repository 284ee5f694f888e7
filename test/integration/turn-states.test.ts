/** Walks every cell of the tables of moves on a real Postgres: what is allowed lands where they say, the rest changes no row. */
import { decideMove } from '../../src/chats/moves.ts'
import {
  CHAT_COMMANDS,
  chatAfter,
  findMove,
  TURN_MOVES,
  TURN_TRANSITIONS,
  type ChatCell,
  type ChatCommand,
  type Claim,
  type TurnTransition,
} from '../../src/chats/index.ts'
import { resumeWaitingParent } from '../../src/chats/subagents.ts'
import { expireAction } from '../../src/chats/tool-results.ts'
import { isTurnmillError, TurnmillError } from '../../src/protocol/errors.ts'
import { newId } from '../../src/protocol/ids.ts'
import type { TurnState } from '../../src/protocol/views.ts'
import {
  call, claimTurn, message, newChat, openChatWorld, readFamily, step, text, WORLD_SLOTS, type ChatWorld, type Family,
} from '../support/chat-world.ts' // prettier-ignore
import { testClaim } from '../support/claims.ts'

/** A chat that was brought into a cell by transitions alone. */
interface Seeded {
  chatId: string
  turnId: string
  messageId: string
  queuedMessageId: string
  childId?: string
}

interface Cell extends ChatCell {
  /** The state of the turn that transitions are tried on. */
  turn: TurnState
  /** Whether that turn is the chat's last. */
  current: boolean
}

let world: ChatWorld
beforeAll(async () => {
  world = await openChatWorld(1)
})
afterAll(() => world.close())

const cell = (turn: TurnState, queue: ChatCell['queue'], archived = false): Cell => ({
  turn, queue, archived, current: turn !== 'superseded', status: turn === 'superseded' ? 'pending' : chatAfter(turn, 'empty'),
}) // prettier-ignore

const BUSY: readonly TurnState[] = [
  'pending',
  'running',
  'interrupting',
  'requires_action',
  'waiting',
  'superseded',
]
const CELLS: Cell[] = [
  ...BUSY.flatMap((turn) => [cell(turn, 'empty'), cell(turn, 'waiting')]),
  ...(['completed', 'interrupted'] as const).flatMap((turn) => [
    cell(turn, 'empty'),
    cell(turn, 'empty', true),
  ]),
  ...([false, true] as const).flatMap((archived) => [
    cell('failed', 'empty', archived),
    cell('failed', 'waiting', archived),
  ]),
]

const describeCell = ({ turn, queue, archived }: Cell): string =>
  `${turn}, queue ${queue}${archived ? ', archived' : ''}`

const FAILURE = new TurnmillError('provider_rejected', 'refused')
const NOTHING = { usage: null, costMicros: null }

/** Brings a turn into a state; the queued message is sent while the chat is busy. */
async function seed({ turn, queue, archived }: Cell): Promise<Seeded> {
  const { chats, initiator } = world
  const started = await chats.create(initiator, newChat('first'))
  const chatId = started.chat.id
  const seeded = { chatId, turnId: started.turn.id, messageId: started.message.id, queuedMessageId: '1' }
  if (turn === 'superseded')
    seeded.messageId = (
      await chats.edit(initiator, { ...message('edited'), chatId, messageId: started.message.id })
    ).message.id
  if (queue === 'waiting') {
    const sent = await chats.send(initiator, { ...message('queued'), chatId, whenBusy: 'queue' })
    if ('queuedMessage' in sent) seeded.queuedMessageId = sent.queuedMessage.id
  }
  await bringInto(turn, seeded)
  if (archived) await chats.change(initiator, chatId, { archived: true })
  return seeded
}

async function bringInto(turn: TurnState, { chatId, turnId }: Seeded): Promise<void> {
  const { chats, initiator } = world
  if (turn === 'pending' || turn === 'superseded') return
  if (turn === 'interrupted') {
    await chats.interrupt(initiator, chatId)
    return
  }
  const claim = await claimTurn(world, turnId)
  if (turn === 'completed') return chats.finish(claim, step(1, text('answer')))
  await chats.commitStep(claim, step(1, [...text('let me see'), call('call-1'), call('call-2')]))
  if (turn === 'interrupting') await chats.interrupt(initiator, chatId)
  if (turn === 'requires_action')
    await chats.requireAction(claim, [{ callId: 'call-1', state: 'awaiting_client' }], 1)
  if (turn === 'waiting') await waitForChild(claim)
  if (turn === 'failed') await chats.fail(claim, FAILURE, NOTHING)
}

async function waitForChild(claim: Claim): Promise<void> {
  const child = await world.chats.spawn(claim, spawnInput('call-2'))
  if (!(await world.chats.wait(claim, [child.id], 1))) throw new Error('the parent does not wait')
}

/** One at rest, as far as its parent is concerned at any time. */
async function addChild({ chatId }: Seeded): Promise<string> {
  const { userId } = world.initiator
  const child = await world.db.prisma.chat.create({
    data: { id: newId(), userId, parentId: chatId, rootId: chatId, depth: 1, subagentType: 'general' },
  })
  return child.id
}

const spawnInput = (callId: string) => ({
  callId, type: 'general' as const, title: null, parts: text('look around'), systemPrompt: null, modelConfigId: null,
}) // prettier-ignore

/** Whoever believes to hold the turn, with the epoch it has: the state alone decides. */
async function holderOf({ chatId, turnId }: Seeded): Promise<Claim> {
  const turn = await world.db.prisma.turn.findUniqueOrThrow({ where: { id: turnId } })
  return testClaim({
    turnId, chatId, epoch: turn.epoch, number: turn.number, committedSteps: 1, userId: turn.userId, apiKeyId: turn.apiKeyId,
  }) // prettier-ignore
}

const jobOf = async ({ turnId }: Seeded): Promise<string> =>
  (await world.db.prisma.turn.findUniqueOrThrow({ where: { id: turnId } })).jobId ?? ''

type Attempt = (seeded: Seeded, claim: Claim) => Promise<unknown>

const retryState = () => ({
  step: 2, attempts: 1, error: { code: 'provider_overloaded' as const, message: 'x', recovery: 'retry' as const },
  retryAt: new Date(0).toISOString(),
}) // prettier-ignore

const callResult = (toolCallId: string) => ({
  toolCallId, toolName: 'look_up', output: 'found', isError: false, state: 'done' as const,
}) // prettier-ignore

/** How each transition of a turn is tried. A refusal is an error, `null`, `false` or a word. */
const TRANSITIONS: Record<
  Exclude<TurnTransition, 'interrupt' | 'supersede' | 'submitToolResults'>,
  Attempt
> = {
  claim: async ({ turnId }) => world.chats.claim({ turnId, jobId: 'x', attemptsMade: 0, compare: null }),
  commitStep: async (_, claim) => world.chats.commitStep(claim, step(2, [call('call-3')])),
  commitResults: async (_, claim) =>
    world.chats.commitResults(claim, 1, [callResult('call-1'), callResult('call-2')]),
  startCalls: async (_, claim) => world.chats.startCalls(claim, ['call-1']),
  keepResults: async (_, claim) => world.chats.keepResults(claim, [callResult('call-1')]),
  compact: async (_, claim) =>
    world.chats.compact(claim, {
      step: 1, parts: text('so far'), keep: [], modelConfigId: newId(), spent: NOTHING,
    }), // prettier-ignore
  spawn: async (_, claim) => world.chats.spawn(claim, spawnInput('call-1')),
  steer: async ({ childId = '' }, claim) => world.chats.messageSubagent(claim, childId, text('more')),
  requireAction: async (_, claim) =>
    world.chats.requireAction(claim, [{ callId: 'call-1', state: 'awaiting_approval' }], 60_000),
  wait: async (_, claim) => world.chats.wait(claim, [], 60_000),
  backoff: async (_, claim) =>
    world.chats.backoff(claim, { delayMs: 60_000, retry: retryState(), spent: NOTHING }),
  release: async (_, claim) => world.chats.release(claim, NOTHING),
  finish: async (_, claim) => world.chats.finish(claim, step(2, text('answer'))),
  fail: async (_, claim) => world.chats.fail(claim, FAILURE, NOTHING),
  finishInterrupt: async (_, claim) =>
    world.chats.finishInterrupted(claim, step(2, text('half an ans')), NOTHING),
  expireAction: async ({ turnId, chatId }) => expireAction(world.db, WORLD_SLOTS, { turnId, chatId }),
  resume: async ({ chatId }) => resumeWaitingParent(world.db, WORLD_SLOTS, chatId),
  reopen: async (seeded) =>
    world.chats.reopen({
      turnId: seeded.turnId,
      jobId: await jobOf(seeded),
      attemptsMade: 1,
      compare: null,
    }),
}

/** How each command of a user is tried. */
const COMMANDS: Record<ChatCommand, (seeded: Seeded) => Promise<unknown>> = {
  send: ({ chatId }) => world.chats.send(world.initiator, { ...message('next'), chatId, whenBusy: 'queue' }),
  'send, interrupting': ({ chatId }) =>
    world.chats.send(world.initiator, { ...message('next'), chatId, whenBusy: 'interrupt' }),
  'send, rejecting': ({ chatId }) =>
    world.chats.send(world.initiator, { ...message('next'), chatId, whenBusy: 'reject' }),
  edit: ({ chatId, messageId }) =>
    world.chats.edit(world.initiator, { ...message('changed'), chatId, messageId }),
  editQueued: ({ chatId, queuedMessageId }) =>
    world.chats.changeQueued(world.initiator, {
      chatId,
      queuedMessageId,
      parts: text('other'),
      position: null,
    }),
  moveQueued: ({ chatId, queuedMessageId }) =>
    world.chats.changeQueued(world.initiator, { chatId, queuedMessageId, parts: null, position: 0 }),
  deleteQueued: ({ chatId, queuedMessageId }) =>
    world.chats.deleteQueued(world.initiator, { chatId, queuedMessageId }),
  promote: ({ chatId, queuedMessageId }) =>
    world.chats.promoteQueued(world.initiator, { chatId, queuedMessageId }),
  interrupt: ({ chatId }) => world.chats.interrupt(world.initiator, chatId),
  submitToolResults: ({ chatId }) =>
    world.chats.submitToolResults(world.initiator, chatId, [{ toolCallId: 'call-1', output: 'found' }]),
  retry: ({ chatId }) => world.chats.retry(world.initiator, chatId),
  compact: ({ chatId }) => world.chats.compactHistory(world.initiator, chatId),
  clear: ({ chatId }) => world.chats.clear(world.initiator, chatId),
  archive: ({ chatId }) => archive(chatId, true),
  unarchive: ({ chatId }) => archive(chatId, false),
  delete: ({ chatId }) => world.chats.delete(world.initiator, chatId),
}

/** Archiving what is archived is no command at all, and changes nothing. */
async function archive(chatId: string, archived: boolean): Promise<void> {
  const chat = await world.chats.get(chatId, world.initiator.userId)
  if ((chat.archivedAt !== null) === archived) throw new TurnmillError('move_refused', 'nothing to do')
  await world.chats.change(world.initiator, chatId, { archived })
}

const rowOf = (rows: Family['turns'], id: string): Record<string, unknown> | undefined =>
  rows?.find((row) => row['id'] === id)

/** What a watcher of the chat may see: not its subagents, nor the ledger. */
const visible = ({ chats, messages, queue, turns }: Family, chatId: string): string =>
  JSON.stringify(
    [chats, messages, queue, turns].map((rows) =>
      rows?.filter((row) => row['chat_id'] === chatId || row['id'] === chatId),
    ),
  )

/** A change of a chat advances its version by one, whatever it was made of. */
function demandOneVersion(before: Family, after: Family, chatId: string): void {
  const version = (family: Family): number => Number(rowOf(family.chats, chatId)?.['snapshot_version'])
  const changed = visible(before, chatId) !== visible(after, chatId)
  expect(version(after) - version(before)).toBe(changed ? 1 : 0)
}

/** No user message stands behind a call that has no result. */
function demandClosedCalls({ messages, turns }: Family): void {
  const living = (messages ?? []).filter((row) => row['deleted_at'] === null)
  const ended = new Set(['completed', 'interrupted'])
  for (const answer of living.filter((row) => row['role'] === 'assistant')) {
    const asks = (answer['parts'] as { type: string }[]).some((part) => part.type === 'tool-call')
    const later = living.some((row) => row['role'] === 'user' && row['chat_id'] === answer['chat_id'] && Number(row['id']) > Number(answer['id'])) // prettier-ignore
    if (!asks || !(later || ended.has(String(rowOf(turns, String(answer['turn_id']))?.['state'])))) continue
    const results = living.filter((row) => row['role'] === 'tool' && row['turn_id'] === answer['turn_id'] && row['step'] === answer['step']) // prettier-ignore
    expect(results).toHaveLength(1)
    expect((results[0]?.['parts'] as unknown[]).length).toBe(2)
  }
}

describe.each(CELLS.map((one) => [describeCell(one), one] as const))('from %s', (_, from) => {
  const commands = CHAT_COMMANDS.filter(() => from.current)
  if (commands.length > 0)
    test.each(commands)('%s does what the table says', async (command) => {
      const seeded = await seed(from)
      const before = await readFamily(world.db, seeded.chatId)
      const move = findMove(command, from)
      const attempt = COMMANDS[command](seeded)
      if (move === undefined) {
        await expect(attempt).rejects.toThrow(TurnmillError)
        expect(await readFamily(world.db, seeded.chatId)).toEqual(before)
        return
      }
      await attempt
      const after = await readFamily(world.db, seeded.chatId)
      if (move.to === 'gone') {
        expect(after.chats).toBeNull()
        return
      }
      const chat = rowOf(after.chats, seeded.chatId)
      expect(chat).toMatchObject({ status: move.to === 'same' ? from.status : move.to })
      expect(chat?.['archived_at'] !== null).toBe(move.does.includes('archive'))
      demandOneVersion(before, after, seeded.chatId)
      demandClosedCalls(after)
    })

  const turnTransitions = TURN_TRANSITIONS.filter(
    (one): one is keyof typeof TRANSITIONS => one in TRANSITIONS,
  )
  test.each(turnTransitions)('%s does what the table says', async (transition) => {
    const seeded = await seed(from)
    if (transition === 'steer') seeded.childId = await addChild(seeded)
    const claim = await holderOf(seeded)
    const before = await readFamily(world.db, seeded.chatId)
    // A reopening needs the chat as the turn left it.
    const landings = from.archived && transition === 'reopen' ? undefined : TURN_MOVES[from.turn][transition]
    const outcome = await TRANSITIONS[transition](seeded, claim).catch((error: unknown) => {
      if (!isTurnmillError(error)) throw error
      return error
    })
    const after = await readFamily(world.db, seeded.chatId)
    if (landings === undefined) {
      expect(after).toEqual(before)
      if (typeof outcome === 'object' && outcome !== null && !('resumed' in outcome)) expect(outcome).toBeInstanceOf(TurnmillError) // prettier-ignore
      return
    }
    const turn = rowOf(after.turns, seeded.turnId)
    expect(landings).toContain(turn?.['state'])
    expect(rowOf(after.chats, seeded.chatId)).toMatchObject({
      status: chatAfter(turn?.['state'] as TurnState, from.queue),
    })
    demandOneVersion(before, after, seeded.chatId)
    // A worker finishes once the results of the step before are committed; nobody else writes them for it.
    if (transition !== 'finish') demandClosedCalls(after)
  })
})

test('a refusal names the chat, its state, the command and what that needs', () => {
  const chat = { id: newId(), status: 'running', queue: 'waiting', archived: false } as const
  expect(() => decideMove('clear', chat)).toThrow(
    `chat ${chat.id} is running with queued messages: clear needs idle or failed with an empty queue`,
  )
  expect(() => decideMove('send', { ...chat, archived: true })).toThrow(
    `chat ${chat.id} is archived: send is refused`,
  )
})

describe('an operator’s retry of a failed turn at the moment of', () => {
  const other = {
    'a send': (chatId: string) =>
      world.chats.send(world.initiator, { ...message('next'), chatId, whenBusy: 'queue' }),
    'a retry by the user': (chatId: string) => world.chats.retry(world.initiator, chatId),
    'an edit': (chatId: string, messageId: string) =>
      world.chats.edit(world.initiator, { ...message('changed'), chatId, messageId }),
    archiving: (chatId: string) => world.chats.change(world.initiator, chatId, { archived: true }),
    'itself, again': (chatId: string, _: string, seeded: Seeded) => reopen(seeded).then(() => chatId),
  } as const

  const reopen = async (seeded: Seeded): Promise<boolean> =>
    world.chats.reopen({ turnId: seeded.turnId, jobId: await jobOf(seeded), attemptsMade: 1, compare: null })

  test.each(Object.entries(other))('%s: one comes first, and one turn at most is active', async (_, act) => {
    for (let round = 0; round < 20; round++) {
      const seeded = await seed(cell('failed', 'empty'))
      const acted = act(seeded.chatId, seeded.messageId, seeded).catch((error: unknown) => {
        if (!isTurnmillError(error)) throw error
      })
      const [reopened] = await Promise.all([reopen(seeded), acted])
      const { turns, chats } = await readFamily(world.db, seeded.chatId)
      const active = (turns ?? []).filter((row) => row['finished_at'] === null)
      expect(active.length).toBeLessThanOrEqual(1)
      expect(rowOf(chats, seeded.chatId)).toMatchObject({ active_turn_id: active[0]?.['id'] ?? null })
      const turn = rowOf(turns, seeded.turnId)
      expect(['pending', 'failed', 'superseded']).toContain(turn?.['state'])
      if (turn?.['state'] === 'failed') expect(reopened).toBe(false)
      if (turn?.['state'] === 'pending') expect(turn['enqueues']).toBe(2)
    }
  })
})
