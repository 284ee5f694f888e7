import { watchEnqueueing } from './enqueueing.ts'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Job } from 'bullmq'
import type { Claim } from '../../src/chats/index.ts'
import { query, statement } from '../../src/db/index.ts'
import { isTurnmillError, TurnmillError } from '../../src/protocol/errors.ts'
import type { JobQueue, JobWorker } from '../../src/queue/backend.ts'
import { call, message, newChat, step, text } from './chat-world.ts'
import { activeTurn, pick, userMessages, type ChatModel, type Command, type ModelHolder, type WorkTransition } from './chat-model.ts' // prettier-ignore
import type { Turnmill } from './turnmill.ts'

/** What a history did to real rows, in the words of the model. */
export interface Projection {
  status: string
  archived: boolean
  history: { role: string; label: string; turn: number; step: number }[]
  queue: { label: string; key: number }[]
  turns: { state: string; epoch: number; label: string; key: number }[]
}

/** $1 chat, $2 keys. */
const projectRows = statement(
  'test/project',
  `select c.status, c.archived_at is not null as archived,
    (select coalesce(jsonb_agg(jsonb_build_object('role', m.role, 'turn', coalesce(t.number, 0), 'step', m.step, 'label',
        case m.role when 'user' then m.parts->0->>'text' else '' end) order by m.id), '[]')
      from messages m left join turns t on t.id = m.turn_id where m.chat_id = c.id and m.deleted_at is null) as history,
    (select coalesce(jsonb_agg(jsonb_build_object('label', q.parts->0->>'text', 'key', array_position($2::uuid[], q.api_key_id) - 1)
      order by q.position, q.id), '[]') from queued_messages q where q.chat_id = c.id and q.state = 'queued') as queue,
    (select coalesce(jsonb_agg(jsonb_build_object('state', t.state, 'epoch', t.epoch, 'label', coalesce(m.parts->0->>'text', ''), 'key',
        array_position($2::uuid[], t.api_key_id) - 1) order by t.number), '[]')
      from turns t left join messages m on m.id = t.user_message_id where t.chat_id = c.id) as turns
  from chats c where c.id = $1`,
)

/** $1 chat. The fate of whatever was ever queued. */
const queuedFates = statement(
  'test/fates',
  `select parts->0->>'text' as label, state from queued_messages where chat_id = $1`,
)

const pickModel = ({ status, archived, history, queue, turns }: ChatModel): Projection => ({
  status,
  archived,
  history: history.map(({ role, label, turn, step: number }) => ({ role, label, turn, step: number })),
  queue: queue.map(({ label, key }) => ({ label, key })),
  turns: turns.map(({ state, epoch, label, key }) => ({ state, epoch, label, key })),
})

export { pickModel as projectModel }

interface RealHolder {
  claim: Claim
  jobId: string
}

/** Plays a history on real Postgres and a real queue, with this test as the worker. */
export interface Replay {
  /** Does for real what the model is about to do. Whether it was accepted. */
  perform(command: Command, model: ChatModel): Promise<boolean>
  project(): Promise<Projection>
  fates(): Promise<Map<string, string>>
  /** Jobs of this chat that somebody is going to run. */
  waitingJobs(): Promise<number>
}

export interface ReplayDeps {
  turnmill: Turnmill
  queue: JobQueue<object>
  worker: JobWorker<object>
}

const TOKEN = 'replay'
const NOTHING = { usage: null, costMicros: null }

/** Starts with what the model starts with: a chat whose first turn is pending. */
export async function startReplay({ turnmill, queue, worker }: ReplayDeps): Promise<Replay> {
  const { chats, db, reconciler } = turnmill.services
  const enqueued = watchEnqueueing(turnmill)
  await queue.obliterate({ force: true })
  const user = await turnmill.addUser()
  const keys = [user.apiKeyId, (await turnmill.addKey(user.userId)).apiKeyId]
  const initiator = (key = 0) => ({ userId: user.userId, apiKeyId: keys[key] ?? '' })
  const started = await chats.create(initiator(), newChat('m1'))
  const chatId = started.chat.id
  const holders = new Map<ModelHolder, RealHolder>()
  const turnIds = [started.turn.id]
  let lastDelivered: { turnId: string; jobId: string } | null = null

  const jobIdOf = (turn: number, job: number): string => `turn-${turnIds[turn - 1]}-${job}`

  async function refreshTurns(): Promise<void> {
    const rows = await db.prisma.turn.findMany({
      where: { chatId },
      orderBy: { number: 'asc' },
      select: { id: true },
    })
    turnIds.splice(0, turnIds.length, ...rows.map(({ id }) => id))
  }

  /** What a worker does with a delivery, up to the claim. */
  async function take(turnId: string, jobId: string, attemptsMade: number): Promise<Claim | boolean> {
    const request = { turnId, jobId, attemptsMade, compare: null }
    await leasesAreOver()
    const claim = await chats.claim(request)
    if (claim === 'ended') return chats.reopen(request)
    return typeof claim === 'string' ? false : claim
  }

  async function deliver(model: ChatModel): Promise<boolean> {
    // Its type does not say so, but an empty queue gives nothing.
    const job = (await worker.getNextJob(TOKEN, { block: false })) as Job<object> | undefined
    if (job === undefined) return false
    const { turnId } = job.data as { turnId: string }
    lastDelivered = { turnId, jobId: job.id ?? '' }
    const taken = await take(turnId, job.id ?? '', job.attemptsMade)
    if (typeof taken !== 'boolean' && (await keep(model, taken, job.id ?? ''))) return true
    if (typeof taken === 'boolean') await job.moveToCompleted(undefined, TOKEN, false)
    else await job.moveToFailed(new Error('key_revoked'), TOKEN, false)
    return taken !== false
  }

  /** Whether it goes on; without a usable key it fails at once, as a worker fails it. */
  async function keep(model: ChatModel, claim: Claim, jobId: string): Promise<boolean> {
    if (claim.keyState === 'invalid' && claim.state === 'running') {
      await chats.fail(claim, new TurnmillError('key_revoked', 'revoked'), NOTHING)
      return false
    }
    // The model makes its holder in a moment; it is the next of its list.
    pending.push({ claim, jobId, place: model.holders.length })
    return true
  }
  const pending: (RealHolder & { place: number })[] = []

  /** Gives the holders that the model has made since their claims. */
  function bindHolders(model: ChatModel): void {
    for (const { claim, jobId, place } of pending.splice(0)) {
      const holder = model.holders[place]
      if (holder !== undefined) holders.set(holder, { claim, jobId })
    }
  }

  async function endJob(holder: ModelHolder, jobId: string, failed: boolean): Promise<void> {
    if (holder.job === null) return
    const job = await queue.getJob(jobId)
    if (job === undefined) return
    if (failed) await job.moveToFailed(new Error('provider_rejected'), TOKEN, false)
    else await job.moveToCompleted(undefined, TOKEN, false)
  }

  const writes: Record<WorkTransition, (claim: Claim, steps: number) => Promise<void>> = {
    commitStep: (claim, steps) =>
      chats.commitStep(claim, step(steps + 1, [call(`call-${steps + 1}-a`), call(`call-${steps + 1}-b`)])),
    commitResults: (claim, steps) =>
      chats.commitResults(claim, steps, [result(`call-${steps}-a`), result(`call-${steps}-b`)]),
    requireAction: (claim, steps) =>
      chats.requireAction(claim, [{ callId: `call-${steps}-a`, state: 'awaiting_client' }], 60_000),
    backoff: (claim, steps) =>
      chats.backoff(claim, { delayMs: -1000, retry: retryOf(steps + 1), spent: NOTHING }),
    release: (claim) => chats.release(claim, NOTHING),
    finish: (claim, steps) => chats.finish(claim, step(steps + 1, text('answer'))),
    fail: (claim) => chats.fail(claim, new TurnmillError('provider_rejected', 'refused'), NOTHING),
    finishInterrupt: (claim) => chats.finishInterrupted(claim, null, NOTHING),
  }

  async function work(
    model: ChatModel,
    command: Extract<Command, { type: 'work' | 'kill' }>,
  ): Promise<boolean> {
    const holder = pick(model.holders, command.holder)
    const real = holder === undefined ? undefined : holders.get(holder)
    const turn = holder === undefined ? undefined : model.turns[holder.turn - 1]
    if (holder === undefined || real === undefined || turn === undefined) return false
    if (command.type === 'kill') return true
    const { transition } = command
    const written = await accepted(() => writes[transition](real.claim, turn.steps))
    const goesOn = written && (transition === 'commitStep' || transition === 'commitResults')
    if (!goesOn) await endJob(holder, real.jobId, written && transition === 'fail')
    return written
  }

  async function retryJob(model: ChatModel): Promise<boolean> {
    const [failed] = model.failed
    if (failed === undefined) return false
    await (await queue.getJob(jobIdOf(failed.turn, failed.job)))?.retry('failed')
    return true
  }

  async function reconcile(): Promise<boolean> {
    const before = await queue.count()
    // An enqueueing of this very millisecond is not asked for yet.
    await leasesAreOver()
    await reconciler.pass()
    await enqueued()
    return (await queue.count()) > before
  }

  /** Ids of rows that the model knows by what was said. */
  async function messageIdOf(label: string | undefined): Promise<string> {
    const rows = await db.prisma.message.findMany({ where: { chatId, role: 'user', deletedAt: null } })
    const row = rows.find(({ parts }) => (parts as { text: string }[])[0]?.text === label)
    return String(row?.id ?? 0)
  }

  async function queuedIdOf(label: string | undefined): Promise<string> {
    const rows = await db.prisma.queuedMessage.findMany({ where: { chatId, state: 'queued' } })
    const row = rows.find(({ parts }) => (parts as { text: string }[])[0]?.text === label)
    return String(row?.id ?? 0)
  }

  async function archive(archived: boolean): Promise<void> {
    const chat = await chats.get(chatId, user.userId)
    if ((chat.archivedAt !== null) === archived) throw new TurnmillError('move_refused', 'nothing to do')
    await chats.change(initiator(), chatId, { archived })
  }

  async function userCommand(command: Command, model: ChatModel): Promise<void> {
    const next = message(`m${model.said + 1}`)
    const queued = 'at' in command ? pick(model.queue, command.at) : undefined
    const target = async () => ({ chatId, queuedMessageId: await queuedIdOf(queued?.label) })
    switch (command.type) {
      case 'send':
        await chats.send(initiator(command.key), { ...next, chatId, whenBusy: 'queue' })
        return
      case 'send, interrupting':
        await chats.send(initiator(command.key), { ...next, chatId, whenBusy: 'interrupt' })
        return
      case 'send, rejecting':
        await chats.send(initiator(command.key), { ...next, chatId, whenBusy: 'reject' })
        return
      case 'edit': {
        const messageId = await messageIdOf(pick(userMessages(model), command.at)?.label)
        await chats.edit(initiator(command.key), { ...next, chatId, messageId })
        return
      }
      case 'editQueued': {
        const change = { ...(await target()), parts: text(queued?.label ?? ''), position: null }
        await chats.changeQueued(initiator(command.key), change)
        return
      }
      case 'moveQueued':
        await chats.changeQueued(initiator(), { ...(await target()), parts: null, position: command.to })
        return
      case 'deleteQueued':
        return chats.deleteQueued(initiator(), await target())
      case 'promote':
        await chats.promoteQueued(initiator(), await target())
        return
      case 'interrupt':
        await chats.interrupt(initiator(command.key), chatId)
        return
      case 'submitToolResults': {
        const waiting = { toolCallId: `call-${activeTurn(model)?.steps}-a`, output: 'found' }
        await chats.submitToolResults(initiator(command.key), chatId, [waiting])
        return
      }
      case 'retry':
        await chats.retry(initiator(command.key), chatId)
        return
      case 'compact':
        await chats.compactHistory(initiator(command.key), chatId)
        return
      case 'clear':
        await chats.clear(initiator(command.key), chatId)
        return
      case 'archive':
      case 'unarchive':
        return archive(command.type === 'archive')
      default:
        throw new Error(`${command.type} is no command of a user`)
    }
  }

  async function perform(command: Command, model: ChatModel): Promise<boolean> {
    // A command does not wait long for the queue, and on a busy machine its job may come later.
    await enqueued()
    bindHolders(model)
    await refreshTurns()
    switch (command.type) {
      case 'revokeKey':
        await db.prisma.apiKey.update({ where: { id: keys[1] ?? '' }, data: { revokedAt: new Date() } })
        return true
      case 'deliver':
        return deliver(model)
      case 'deliverAgain': {
        if (lastDelivered === null) return false
        const { turnId, jobId } = lastDelivered
        const taken = await take(turnId, jobId, 0)
        if (typeof taken !== 'boolean') await keep(model, taken, jobId)
        return taken !== false
      }
      case 'retryJob':
        return retryJob(model)
      case 'emptyQueue':
        await queue.obliterate({ force: true })
        return true
      case 'reconcile':
        return reconcile()
      case 'kill':
      case 'work':
        return work(model, command)
      default:
        return accepted(() => userCommand(command, model))
    }
  }

  return {
    perform,
    project: async () => {
      const [row] = await query<Projection>(db, projectRows(chatId, keys))
      if (row === undefined) throw new Error(`chat ${chatId} is gone`)
      return row
    },
    fates: async () => {
      const rows = await query<{ label: string; state: string }>(db, queuedFates(chatId))
      return new Map(rows.map(({ label, state }) => [label, state]))
    },
    waitingJobs: () => queue.count(),
  }
}

/** Leases are two milliseconds here. */
const leasesAreOver = (): Promise<void> => sleep(4)

const result = (toolCallId: string) =>
  ({ toolCallId, toolName: 'look_up', output: 'found', isError: false, state: 'done' }) as const

const retryOf = (number: number) => ({
  step: number,
  attempts: 1,
  error: { code: 'provider_overloaded' as const, message: 'busy', recovery: 'retry' as const },
  retryAt: new Date(0).toISOString(),
})

/** A refusal is one of ours; anything else is a bug. */
async function accepted(attempt: () => Promise<void>): Promise<boolean> {
  try {
    await attempt()
    return true
  } catch (error) {
    if (!isTurnmillError(error) || error.code === 'internal') throw error
    return false
  }
}
