import type { AwaitedCall, CallResult, Claim, OpenCall } from '../chats/index.ts'
import { toTurnError } from '../protocol/errors.ts'
import type { ImagePart, ToolCallPart } from '../protocol/messages.ts'
import {
  failure,
  settleOutcome,
  type OutcomeLimits,
  type Tool,
  type ToolContext,
  type ToolImage,
  type ToolOutcome,
} from '../tools/index.ts'
import type { ToolBox } from './tool-box.ts'
import { waitForAgents, type WaitEffects } from './wait-for-agents.ts'

/**
 * The calls of one step, from what the model asked for to committed results.
 *
 * C1 nothing runs before the ledger says that it may have.
 * C2 after a crash a call that had begun runs again only where its tool is idempotent; of any other the model is told
 *    that its outcome is unknown. What has ended is never run again.
 * C3 the results of a step are committed together, in the order in which the model asked.
 * C4 calls that share a sequence run one after the other, in the order in which the model asked; all others at once.
 * C5 a turn that waits for its client or for subagents holds no slot; what its other calls came to is kept.
 */
export interface CallEffects extends WaitEffects {
  keepResults(claim: Claim, results: readonly CallResult[]): Promise<void>
  commitResults(claim: Claim, step: number, results: readonly CallResult[]): Promise<void>
  /** Gives the turn back until its client has answered, or refused to by silence. */
  requireAction(claim: Claim, calls: readonly AwaitedCall[]): Promise<void>
  /** Rejects only with the reason of the context's signal. */
  runTool(tool: Tool, input: unknown, context: ToolContext, limits: OutcomeLimits): Promise<ToolOutcome>
  /** The longest output of a call, in bytes; less where a step has so many calls that they would not fit into a row. */
  outputBytes: number
  storeImages(claim: Claim, images: readonly ToolImage[]): Promise<ImagePart[]>
}

export interface StepCalls {
  claim: Claim
  step: number
  calls: readonly OpenCall[]
  tools: ToolBox
  signal: AbortSignal
}

/** What is to be done about a call. */
type Plan =
  | { kind: 'answered'; open: OpenCall; result: CallResult }
  | { kind: 'run'; open: OpenCall; tool: Tool; ours: boolean }
  | { kind: 'ask'; open: OpenCall; state: AwaitedCall['state'] }
  | { kind: 'wait'; open: OpenCall; tool: Tool }

type PlanOf<K extends Plan['kind']> = Extract<Plan, { kind: K }>

/** Answers all calls of a step; `parked` where the turn was given back to wait for somebody. */
export async function answerCalls(
  { claim, step, calls, tools, signal }: StepCalls,
  effects: CallEffects,
): Promise<'answered' | 'parked'> {
  const plans = calls.map((open) => planCall(open, tools))
  const answered = plansOf(plans, 'answered').map(({ result }) => result)
  const limits = { outputBytes: Math.min(effects.outputBytes, Math.floor(STEP_BYTES / calls.length)) }
  const place = { claim, step, signal, limits }
  const ran = await runAll(place, plansOf(plans, 'run'), plans.length > 1, effects)
  const asked = plansOf(plans, 'ask').map(({ open, state }) => ({ callId: open.call.toolCallId, state }))
  if (asked.length > 0) {
    await effects.requireAction(claim, asked)
    return 'parked'
  }
  const waited = await waitForAgents(claim, plansOf(plans, 'wait'), effects)
  if (waited === 'parked') return 'parked'
  const told = waited.map((result) => ({ ...result, output: settleOutcome(result, limits).output }))
  await effects.commitResults(claim, step, inOrder(calls, [...answered, ...ran, ...told]))
  return 'answered'
}

/**
 * The outputs of a step, in bytes: a model is to be shown them in one request. In a row they may take six times that, where
 * they hold many small values, and Postgres takes 256 MB.
 */
const STEP_BYTES = 16 * 1024 * 1024

const plansOf = <K extends Plan['kind']>(plans: readonly Plan[], kind: K): PlanOf<K>[] =>
  plans.filter((plan): plan is PlanOf<K> => plan.kind === kind)

function inOrder(calls: readonly OpenCall[], results: readonly CallResult[]): CallResult[] {
  const byId = new Map(results.map((result) => [result.toolCallId, result]))
  return calls.flatMap(({ call }) => byId.get(call.toolCallId) ?? [])
}

function planCall(open: OpenCall, tools: ToolBox): Plan {
  const { call, state, result } = open
  if (state === 'done' || state === 'denied' || state === 'unknown')
    return { kind: 'answered', open, result: { ...resultOf(call, result), state } }
  // Whatever is wrong with it by now, it may have had its effect.
  const refuse = (problem: string): Plan =>
    state === 'started' ? unknownOutcome(open) : failed(open, problem)
  const found = tools.find(call.toolName)
  if (found === undefined)
    return refuse(`There is no tool named ${call.toolName}. There are: ${namesOf(tools)}.`)
  if (call.inputError !== undefined) return refuse(call.inputError)
  if (found.kind === 'client') return { kind: 'ask', open, state: 'awaiting_client' }
  const { tool } = found
  const complaint = attempt(() => tool.check(call.input))
  if (complaint !== null) return refuse(complaint)
  if (found.kind === 'wait') return { kind: 'wait', open, tool }
  if (state === 'started' && !tool.idempotent) return unknownOutcome(open)
  if (state === 'requested' && (needsApproval(tool, call.input) || hasSafetyChecks(call)))
    return { kind: 'ask', open, state: 'awaiting_approval' }
  return { kind: 'run', open, tool, ours: found.kind === 'turn' }
}

const namesOf = ({ definitions }: ToolBox): string =>
  definitions.length === 0 ? 'none' : definitions.map(({ name }) => name).join(', ')

/** A check that throws has found something wrong, too. */
function attempt(check: () => string | null): string | null {
  try {
    return check()
  } catch (error) {
    return `The input could not be checked: ${toTurnError(error).message}`
  }
}

/** Where a tool cannot say, somebody is asked. */
function needsApproval(tool: Tool, input: unknown): boolean {
  try {
    return tool.needsApproval(input)
  } catch {
    return true
  }
}

/** What its provider holds against a call: somebody is to have seen it before the call runs. */
function hasSafetyChecks({ providerData }: ToolCallPart): boolean {
  const checks = providerData?.['pendingSafetyChecks']
  return Array.isArray(checks) && checks.length > 0
}

const failed = (open: OpenCall, output: string): Plan => ({
  kind: 'answered',
  open,
  result: { ...resultOf(open.call, { output, isError: true, images: [] }), state: 'done' },
})

const unknownOutcome = (open: OpenCall): Plan => ({
  kind: 'answered',
  open,
  result: {
    ...resultOf(open.call, {
      output:
        'The outcome of this call is unknown: it was cut off while it ran, and may have had its effect or not.',
      isError: true,
      images: [],
    }),
    state: 'unknown',
  },
})

const resultOf = (
  { toolCallId, toolName }: ToolCallPart,
  { output, isError, images }: OpenCall['result'],
): Omit<CallResult, 'state'> => ({
  toolCallId,
  toolName,
  output,
  isError,
  ...(images.length > 0 && { images }),
})

interface Place extends Pick<StepCalls, 'claim' | 'step' | 'signal'> {
  limits: OutcomeLimits
}

/**
 * Where one ends the turn, the others are aborted and waited for, so that none writes once the turn is settled. A tool that
 * ignores its signal is left to itself: the ledger knows that it had begun.
 *
 * @param keep whether each result is kept as soon as it is there, since others of the step take longer.
 */
async function runAll(
  { signal, ...place }: Place,
  plans: readonly PlanOf<'run'>[],
  keep: boolean,
  effects: CallEffects,
): Promise<CallResult[]> {
  if (plans.length === 0) return []
  const failed = new AbortController()
  const runs = { keep, place: { ...place, signal: AbortSignal.any([signal, failed.signal]) } }
  const rows = inRows(plans)
  await startPlans(
    place.claim,
    rows.flatMap((row) => row.slice(0, 1)),
    effects,
  )
  const ended = rows.map((row) => runRow(runs, row, effects).catch((error: unknown) => failed.abort(error)))
  const results = await Promise.all(ended)
  failed.signal.throwIfAborted()
  return results.flatMap((ran) => ran ?? [])
}

/** One after the other; the first is noted as started already. */
async function runRow(
  { place, keep }: { place: Place; keep: boolean },
  row: readonly PlanOf<'run'>[],
  effects: CallEffects,
): Promise<CallResult[]> {
  const ran: CallResult[] = []
  for (const [index, plan] of row.entries()) {
    if (index > 0) {
      place.signal.throwIfAborted()
      await startPlans(place.claim, [plan], effects)
    }
    const result = await runCall(place, plan, effects)
    if (keep) await effects.keepResults(place.claim, [result])
    ran.push(result)
  }
  return ran
}

const startPlans = (claim: Claim, plans: readonly PlanOf<'run'>[], effects: CallEffects): Promise<void> =>
  effects.startCalls(
    claim,
    plans.map(({ open }) => open.call.toolCallId),
  )

/** The rows run at once; what stands in one, one after the other. */
function inRows(plans: readonly PlanOf<'run'>[]): PlanOf<'run'>[][] {
  const rows = new Map<string | symbol, PlanOf<'run'>[]>()
  for (const plan of plans) {
    const key = plan.tool.sequence ?? Symbol('alone')
    rows.set(key, [...(rows.get(key) ?? []), plan])
  }
  return [...rows.values()]
}

async function runCall(place: Place, plan: PlanOf<'run'>, effects: CallEffects): Promise<CallResult> {
  const { claim, step, signal, limits } = place
  const { open, tool, ours } = plan
  const { chatId, turnId, userId, apiKeyId } = claim
  const { call } = open
  const context = { signal, chatId, turnId, step, toolCallId: call.toolCallId, userId, apiKeyId }
  const outcome = ours
    ? await runOwnTool(tool, call.input, context, limits)
    : await effects.runTool(tool, call.input, context, limits)
  const kept = await keepImages(claim, outcome, effects)
  return { ...resultOf(call, kept), state: 'done' }
}

/** Images that cannot be kept are told of; the rest of the result is worth having. */
async function keepImages(
  claim: Claim,
  { output, isError, images }: ToolOutcome,
  { storeImages }: CallEffects,
): Promise<OpenCall['result']> {
  if (images.length === 0) return { output, isError, images: [] }
  try {
    return { output, isError, images: await storeImages(claim, images) }
  } catch (error) {
    const problem = toTurnError(error)
    if (ENDS_TURN.has(problem.code)) throw error
    return { output: [output, `Its images could not be kept: ${problem.message}`], isError, images: [] }
  }
}

/** What ends the turn, whoever says it; anything else is for the model to read. */
const ENDS_TURN: ReadonlySet<string> = new Set([
  'turn_fenced',
  'turn_interrupted',
  'turn_failed',
  'turn_timeout',
  'key_revoked',
  'missing_key',
  'gateway_unauthorized',
  'worker_stopped',
  'database_unavailable',
])

async function runOwnTool(
  tool: Tool,
  input: unknown,
  context: ToolContext,
  limits: OutcomeLimits,
): Promise<ToolOutcome> {
  try {
    // It may tell what a model has said, which is of any length.
    return settleOutcome(await tool.execute(input, context), limits)
  } catch (error) {
    const problem = toTurnError(error)
    if (ENDS_TURN.has(problem.code)) throw error
    return failure(problem.message)
  }
}
