import type { CallResult, Claim, OpenCall, Subagent } from '../chats/index.ts'

/** What waiting for subagents does to the world. */
export interface WaitEffects {
  startCalls(claim: Claim, callIds: readonly string[]): Promise<void>
  /** The children of the turn's chat, oldest first. */
  listAgents(claim: Claim): Promise<Subagent[]>
  /** Gives the turn back until none of these is at work or the time is up; `false` where none is: it runs on. */
  wait(claim: Claim, childIds: readonly string[], deadlineMs: number): Promise<boolean>
  /** How long a call may wait, in ms. */
  waitingDeadlineMs: number
}

/** The input of `wait_agent`. */
export interface WaitInput {
  /** All, where absent or empty. */
  agentIds?: string[] | undefined
  timeoutSeconds?: number | undefined
}

interface Waiting {
  open: OpenCall
}

/** How long before its end a wait counts as over, in ms: two clocks read it. */
const SLACK_MS = 50

/** Answers all calls that wait for subagents, or gives the turn back until they can be. */
export async function waitForAgents(
  claim: Claim,
  calls: readonly Waiting[],
  effects: WaitEffects,
): Promise<CallResult[] | 'parked'> {
  if (calls.length === 0) return []
  await effects.startCalls(
    claim,
    calls.map(({ open }) => open.call.toolCallId),
  )
  for (;;) {
    const agents = await effects.listAgents(claim)
    const waits = calls.flatMap(({ open }) => stillWaits(open, agents, effects.waitingDeadlineMs))
    if (waits.length === 0) return calls.map(({ open }) => report(open, agents))
    const ids = [...new Set(waits.flatMap((wait) => wait.ids))]
    const deadlineMs = Math.min(...waits.map((wait) => wait.remainingMs))
    if (await effects.wait(claim, ids, deadlineMs)) return 'parked'
  }
}

/** Nothing where the call can be answered. */
function stillWaits(
  open: OpenCall,
  agents: readonly Subagent[],
  longestMs: number,
): { ids: string[]; remainingMs: number }[] {
  const { timeoutSeconds } = open.call.input as WaitInput
  const limitMs = Math.min(longestMs, timeoutSeconds === undefined ? longestMs : timeoutSeconds * 1000)
  const remainingMs = limitMs - (open.startedMs ?? 0)
  const ids = awaited(open, agents).flatMap(({ id, atWork }) => (atWork ? [id] : []))
  return ids.length === 0 || remainingMs <= SLACK_MS ? [] : [{ ids, remainingMs }]
}

function awaited(open: OpenCall, agents: readonly Subagent[]): readonly Subagent[] {
  const { agentIds = [] } = open.call.input as WaitInput
  return agentIds.length === 0 ? agents : agents.filter(({ id }) => agentIds.includes(id))
}

function report(open: OpenCall, agents: readonly Subagent[]): CallResult {
  const { toolCallId, toolName, input } = open.call
  const { agentIds = [] } = input as WaitInput
  const unknown = agentIds.filter((id) => !agents.some((agent) => agent.id === id))
  const output = {
    agents: awaited(open, agents).map(describeAgent),
    ...(unknown.length > 0 && { unknown }),
  }
  return { toolCallId, toolName, output, isError: unknown.length > 0, state: 'done' }
}

/** A subagent as the model that spawned it reads of it. */
export const describeAgent = ({ id, type, title, status, answer, error }: Subagent) => ({
  agentId: id,
  type,
  ...(title !== null && { title }),
  status: status === 'idle' ? 'done' : status,
  ...(answer !== null && { answer }),
  ...(error !== null && { error: error.message }),
})
