/**
 * The state machine on its own: one chat in memory, moved by the very tables that the code asks under the lock, with a
 * queue that delivers twice, loses everything and workers that die. What it becomes is what real rows must be.
 */
import {
  chatAfter,
  findMove,
  TURN_MOVES,
  type ChatCommand,
  type Effect,
  type TurnTransition,
} from '../../src/chats/index.ts'
import type { ChatStatus, TurnState } from '../../src/protocol/views.ts'

/** Numbers in commands choose among what is there; they are taken modulo its length. */
export type Command =
  | { type: 'send' | 'send, interrupting' | 'send, rejecting'; key: number }
  | { type: 'edit' | 'editQueued'; at: number; key: number }
  | { type: 'moveQueued'; at: number; to: number }
  | { type: 'deleteQueued' | 'promote'; at: number }
  | {
      type: 'interrupt' | 'submitToolResults' | 'retry' | 'compact' | 'clear' | 'archive' | 'unarchive'
      key: number
    }
  | { type: 'revokeKey' | 'deliver' | 'deliverAgain' | 'retryJob' | 'emptyQueue' | 'reconcile' }
  | { type: 'kill'; holder: number }
  | { type: 'work'; transition: WorkTransition; holder: number }

export const WORK_TRANSITIONS = [
  'commitStep',
  'commitResults',
  'requireAction',
  'backoff',
  'release',
  'finish',
  'fail',
  'finishInterrupt',
] as const
export type WorkTransition = (typeof WORK_TRANSITIONS)[number]

export interface ModelMessage {
  role: 'user' | 'assistant' | 'tool' | 'system'
  /** What a user said; empty for the rest. */
  label: string
  turn: number
  step: number
  asksForTools: boolean
}

export interface ModelTurn {
  number: number
  state: TurnState
  epoch: number
  label: string
  key: number
  job: number
  jobAttempts: number
  /** Committed steps. */
  steps: number
  /** Whether the last step asked for tools whose results are not committed. */
  open: boolean
  /** Whether the client was asked for them: nobody asks twice. */
  asked: boolean
}

export interface ModelQueued {
  label: string
  key: number
}

export interface ModelJob {
  turn: number
  job: number
  attempts: number
  /** Whether it goes before all that wait, also when it is retried. */
  ahead: boolean
}

/** A worker that believes to hold a turn. */
export interface ModelHolder {
  turn: number
  epoch: number
  /** `null` once the queue has lost it. */
  job: ModelJob | null
}

export interface ChatModel {
  status: ChatStatus
  archived: boolean
  history: ModelMessage[]
  /** Messages that an edit took away. */
  removed: ModelMessage[]
  queue: ModelQueued[]
  turns: ModelTurn[]
  waiting: ModelJob[]
  failed: ModelJob[]
  lastDelivered: ModelJob | null
  holders: ModelHolder[]
  revoked: Set<number>
  /** What was accepted, and what became of it. */
  fates: Map<string, 'history' | 'queued' | 'deleted' | 'superseded' | 'removed'>
  said: number
}

export const QUEUE_LIMIT = 3

export function createModel(): ChatModel {
  const model: ChatModel = {
    status: 'idle', archived: false, history: [], removed: [], queue: [], turns: [], waiting: [], failed: [],
    lastDelivered: null, holders: [], revoked: new Set(), fates: new Map(), said: 0,
  } // prettier-ignore
  startTurn(model, say(model, 0))
  return model
}

const TERMINAL = new Set<TurnState>(['completed', 'failed', 'interrupted', 'superseded'])

export const isTerminal = (state: TurnState): boolean => TERMINAL.has(state)

/** The last where `index` is -1. */
export const pick = <T>(items: readonly T[], index: number): T | undefined =>
  index < 0 || items.length === 0 ? items.at(-1) : items[index % items.length]

export const activeTurn = ({ turns }: ChatModel): ModelTurn | undefined =>
  turns.find(({ state }) => !isTerminal(state))

export const lastTurn = ({ turns }: ChatModel): ModelTurn | undefined => turns.at(-1)

export const userMessages = ({ history }: ChatModel): ModelMessage[] =>
  history.filter(({ role }) => role === 'user')

function say(model: ChatModel, key: number): ModelQueued {
  model.said += 1
  return { label: `m${model.said}`, key }
}

function enqueue(model: ChatModel, turn: ModelTurn): void {
  turn.job += 1
  // One that was begun has stood in the queue before.
  wait(model, { turn: turn.number, job: turn.job, attempts: 0, ahead: turn.epoch > 0 })
}

function wait(model: ChatModel, job: ModelJob): void {
  if (job.ahead) model.waiting.unshift(job)
  else model.waiting.push(job)
}

function newTurn(model: ChatModel, { label, key }: ModelQueued): ModelTurn {
  const turn: ModelTurn = {
    number: model.turns.length + 1, state: 'pending', epoch: 0, label, key, job: 0, jobAttempts: 0, steps: 0, open: false, asked: false,
  } // prettier-ignore
  model.turns.push(turn)
  model.status = 'pending'
  enqueue(model, turn)
  return turn
}

function startTurn(model: ChatModel, said: ModelQueued): void {
  const turn = newTurn(model, said)
  model.fates.set(said.label, 'history')
  model.history.push({ role: 'user', label: said.label, turn: turn.number, step: 0, asksForTools: false })
}

function promote(model: ChatModel): void {
  const head = model.queue.shift()
  if (head !== undefined) startTurn(model, head)
}

function closeCalls(model: ChatModel, turn: ModelTurn | undefined): void {
  if (turn?.open !== true) return
  turn.open = false
  model.history.push({ role: 'tool', label: '', turn: turn.number, step: turn.steps, asksForTools: false })
}

function moveTurn(model: ChatModel, turn: ModelTurn, state: TurnState): void {
  turn.state = state
  model.status = chatAfter(state, 'empty')
}

function supersede(model: ChatModel, from: ModelMessage): void {
  const active = activeTurn(model)
  if (active !== undefined) active.state = 'superseded'
  for (const { label } of model.queue) model.fates.set(label, 'superseded')
  model.queue = []
  const gone = model.history.splice(model.history.indexOf(from))
  for (const { role, label } of gone) if (role === 'user') model.fates.set(label, 'removed')
  model.removed.push(...gone)
  // The steps of a turn that lost its messages are gone with it; nobody asks for them again.
  for (const turn of model.turns) if (gone.some((one) => one.turn === turn.number)) turn.open = false
}

/** Whether it was accepted. A refusal changes nothing. */
export function apply(model: ChatModel, command: Command): boolean {
  switch (command.type) {
    case 'revokeKey':
      model.revoked.add(1)
      return true
    case 'deliver':
      return deliver(model, model.waiting.shift())
    case 'deliverAgain':
      return model.lastDelivered !== null && claim(model, { ...model.lastDelivered, attempts: 0 }, null)
    case 'retryJob':
      return retryJob(model)
    case 'emptyQueue':
      model.waiting = []
      model.failed = []
      for (const holder of model.holders) holder.job = null
      return true
    case 'reconcile':
      return reconcile(model)
    case 'kill':
      return takeHolder(model, command.holder) !== undefined
    case 'work':
      return work(model, command.transition, command.holder)
    default:
      return applyChatCommand(model, command)
  }
}

function applyChatCommand(model: ChatModel, command: Extract<Command, { type: ChatCommand }>): boolean {
  const target =
    'at' in command && command.type === 'edit' ? pick(userMessages(model), command.at) : undefined
  if (command.type === 'edit' && target === undefined) return false
  const move = findMove(command.type, {
    status: model.status,
    queue: model.queue.length === 0 ? 'empty' : 'waiting',
    archived: model.archived,
  })
  if (move === undefined) return false
  if (move.does.includes('append') && model.queue.length >= QUEUE_LIMIT) return false
  const before = model.status
  for (const effect of move.does) carryOut(model, effect, command, target)
  const expected = move.to === 'same' ? before : move.to
  if (model.status !== expected)
    throw new Error(`${command.type} from ${before} landed in ${model.status}, the table says ${expected}`)
  return true
}

function carryOut(
  model: ChatModel,
  effect: Effect,
  command: Extract<Command, { type: ChatCommand }>,
  target: ModelMessage | undefined,
): void {
  const key = 'key' in command ? command.key : 0
  const active = activeTurn(model)
  switch (effect) {
    case 'append': {
      const said = say(model, key)
      model.fates.set(said.label, 'queued')
      model.queue.push(said)
      return
    }
    case 'close': {
      if (model.status === 'failed') closeCalls(model, lastTurn(model))
      return
    }
    case 'start': {
      startTurn(model, say(model, key))
      return
    }
    case 'promote': {
      promote(model)
      return
    }
    case 'stop':
      if (active !== undefined) moveTurn(model, active, 'interrupting')
      return
    case 'end':
      if (active === undefined) return
      moveTurn(model, active, 'interrupted')
      {
        closeCalls(model, active)
        return
      }
    case 'supersede': {
      if (target !== undefined) supersede(model, target)
      return
    }
    case 'toHead':
    case 'changeQueue': {
      changeQueue(model, command)
      return
    }
    case 'resume':
      if (active === undefined) return
      moveTurn(model, active, 'pending')
      {
        enqueue(model, active)
        return
      }
    case 'repeat': {
      const failed = lastTurn(model)
      if (failed !== undefined) newTurn(model, { label: failed.label, key })
      return
    }
    case 'compact':
      newTurn(model, { label: '', key })
      return
    case 'clear':
      model.history.push({ role: 'system', label: '', turn: 0, step: 0, asksForTools: false })
      model.status = 'idle'
      return
    case 'archive':
    case 'unarchive':
      model.archived = effect === 'archive'
      return
    case 'cascade':
    case 'remove':
      return
  }
}

function changeQueue(model: ChatModel, command: Extract<Command, { type: ChatCommand }>): void {
  if (!('at' in command)) return
  const index = command.at % model.queue.length
  const [queued] = model.queue.splice(index, 1)
  if (queued === undefined) return
  if (command.type === 'deleteQueued') return void model.fates.set(queued.label, 'deleted')
  if (command.type === 'editQueued') queued.key = command.key
  const place = command.type === 'promote' ? 0 : command.type === 'moveQueued' ? command.to : index
  model.queue.splice(place, 0, queued)
}

function deliver(model: ChatModel, job: ModelJob | undefined): boolean {
  if (job === undefined) return false
  model.lastDelivered = job
  return claim(model, job, job)
}

/** Leases are over at once here, so that every delivery may take a turn over. */
function claim(model: ChatModel, job: ModelJob, held: ModelJob | null): boolean {
  const turn = model.turns[job.turn - 1]
  if (turn === undefined) return false
  if (turn.state === 'failed') return reopen(model, turn, job)
  const [landing] = TURN_MOVES[turn.state].claim ?? []
  if (landing === undefined) return false
  moveTurn(model, turn, landing)
  turn.epoch += 1
  if (turn.job === job.job) turn.jobAttempts = job.attempts
  const holder = { turn: turn.number, epoch: turn.epoch, job: held }
  model.holders.push(holder)
  // Without a usable key no call is made; ending an interrupted turn needs none.
  if (turn.state === 'running' && model.revoked.has(turn.key)) work(model, 'fail', model.holders.length - 1)
  return true
}

function reopen(model: ChatModel, turn: ModelTurn, job: ModelJob): boolean {
  const untouched = model.status === 'failed' && !model.archived && lastTurn(model) === turn
  if (!untouched || turn.job !== job.job || turn.jobAttempts >= job.attempts) return false
  turn.jobAttempts = job.attempts
  moveTurn(model, turn, 'pending')
  enqueue(model, turn)
  return true
}

function retryJob(model: ChatModel): boolean {
  const job = model.failed.shift()
  if (job === undefined) return false
  wait(model, { ...job, attempts: job.attempts + 1 })
  return true
}

const HELD_OR_DUE = new Set<TurnState>(['pending', 'running', 'interrupting'])

function reconcile(model: ChatModel): boolean {
  const turn = activeTurn(model)
  if (turn === undefined || !HELD_OR_DUE.has(turn.state)) return false
  if (model.waiting.some(({ turn: number, job }) => number === turn.number && job === turn.job)) return false
  enqueue(model, turn)
  return true
}

function takeHolder(model: ChatModel, index: number): ModelHolder | undefined {
  const holder = pick(model.holders, index)
  if (holder !== undefined) model.holders.splice(model.holders.indexOf(holder), 1)
  return holder
}

/** Writes after which the worker goes on with the turn. */
const GOES_ON = new Set<WorkTransition>(['commitStep', 'commitResults'])

/** Whether a worker that does its duty would try this: it commits results before anything else that builds on them. */
export function isDutiful(turn: ModelTurn, transition: WorkTransition): boolean {
  if (transition === 'requireAction') return turn.open && !turn.asked
  if (transition === 'commitResults') return turn.open
  if (transition === 'commitStep' || transition === 'finish') return !turn.open
  return true
}

function work(model: ChatModel, transition: WorkTransition, index: number): boolean {
  const holder = pick(model.holders, index)
  const turn = holder === undefined ? undefined : model.turns[holder.turn - 1]
  if (holder === undefined || turn === undefined || !isDutiful(turn, transition)) return false
  const [landing] =
    turn.epoch === holder.epoch ? (TURN_MOVES[turn.state][transition as TurnTransition] ?? []) : []
  if (landing === undefined || !GOES_ON.has(transition)) takeHolder(model, index)
  if (landing === undefined) return false
  write(model, turn, transition)
  if (transition === 'fail' && holder.job !== null) model.failed.push(holder.job)
  return true
}

function write(model: ChatModel, turn: ModelTurn, transition: WorkTransition): void {
  const answer = (asksForTools: boolean): void => {
    turn.steps += 1
    turn.open = asksForTools
    turn.asked = false
    model.history.push({ role: 'assistant', label: '', turn: turn.number, step: turn.steps, asksForTools })
  }
  switch (transition) {
    case 'commitStep': {
      answer(true)
      return
    }
    case 'commitResults': {
      closeCalls(model, turn)
      return
    }
    case 'requireAction': {
      turn.asked = true
      moveTurn(model, turn, 'requires_action')
      return
    }
    case 'backoff':
    case 'release':
      moveTurn(model, turn, 'pending')
      {
        enqueue(model, turn)
        return
      }
    case 'finish':
      answer(false)
      moveTurn(model, turn, 'completed')
      {
        promote(model)
        return
      }
    case 'fail': {
      moveTurn(model, turn, 'failed')
      return
    }
    case 'finishInterrupt':
      moveTurn(model, turn, 'interrupted')
      closeCalls(model, turn)
      {
        promote(model)
        return
      }
  }
}

/** Brings everything to rest: what is lost is found, what is due is run. */
export function* settling(model: ChatModel): Generator<Command> {
  for (let round = 0; round < 200; round++) {
    if (model.status === 'requires_action') yield { type: 'submitToolResults', key: 0 }
    yield { type: 'reconcile' }
    while (model.holders.length > 1) yield { type: 'kill', holder: 0 }
    if (model.waiting.length > 0) yield { type: 'deliver' }
    const holder = model.holders.at(-1)
    const turn = holder === undefined ? undefined : model.turns[holder.turn - 1]
    const last = model.holders.length - 1
    if (turn?.state === 'interrupting') yield { type: 'work', transition: 'finishInterrupt', holder: last }
    else if (turn?.open === true) yield { type: 'work', transition: 'commitResults', holder: last }
    else if (turn !== undefined) yield { type: 'work', transition: 'finish', holder: last }
    if (activeTurn(model) === undefined && model.waiting.length === 0 && model.holders.length === 0) return
  }
  throw new Error('the chat does not come to rest')
}

/** I1 to I5 and I7, as far as a moment shows them. @throws {Error} that names the invariant. */
export function checkInvariants(model: ChatModel, before: readonly ModelTurn[]): void {
  const demand = (holds: boolean, invariant: string): void => {
    if (!holds) throw new Error(`${invariant} does not hold: ${JSON.stringify(model)}`)
  }
  const answers = [...model.history, ...model.removed].filter(({ role }) => role === 'assistant')
  demand(new Set(answers.map(({ turn, step }) => `${turn}.${step}`)).size === answers.length, 'I2')
  for (const answer of answers)
    if (!answer.asksForTools)
      demand(!answers.some(({ turn, step }) => turn === answer.turn && step > answer.step), 'I2')
  demand(model.turns.filter(({ state }) => !isTerminal(state)).length <= 1, 'I3')
  const order = model.history.filter(({ role }) => role === 'assistant').map(({ turn }) => turn)
  demand(
    order.every((turn, index) => index === 0 || turn >= (order[index - 1] ?? 0)),
    'I4',
  )
  for (const { number, state } of before) {
    const now = model.turns[number - 1]?.state
    demand(!isTerminal(state) || now === state || (state === 'failed' && now === 'pending'), 'I5')
  }
  const stuck = model.queue.length > 0 && activeTurn(model) === undefined && model.status !== 'failed'
  demand(!stuck || model.archived, 'I7')
}

/** I1 and I8, once everything is at rest. */
export function checkAtRest(model: ChatModel): void {
  for (const [label, fate] of model.fates) {
    const kept = fate === 'queued' && (model.status === 'failed' || model.archived)
    const turn = model.turns.find((one) => one.label === label)
    const ended = fate === 'history' && turn !== undefined && isTerminal(turn.state)
    if (!(kept || ended || ['deleted', 'superseded', 'removed'].includes(fate)))
      throw new Error(`I1 does not hold: ${label} is ${fate} in ${JSON.stringify(model)}`)
  }
  if (model.waiting.length > 0) throw new Error(`I8 does not hold: ${JSON.stringify(model.waiting)} are left`)
}
