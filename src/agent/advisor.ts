import { z } from 'zod'
import type { Claim, ContextMessage, Spent } from '../chats/index.ts'
import type { BuiltRoute } from '../models/index.ts'
import type { ModelMessage } from '../protocol/messages.ts'
import type { CallPlace, Purpose } from '../protocol/routes.ts'
import { defineTool, refusal } from '../tools/index.ts'
import { AskFailedError, askModel } from './ask-model.ts'
import type { ModelCallEffects } from './model-call.ts'
import type { TurnTool } from './tool-box.ts'
import { untilCommitted } from './until-committed.ts'

/** What asking the advisor does to the world. */
export interface AdvisorEffects extends ModelCallEffects {
  loadContext(claim: Claim): Promise<ContextMessage[]>
  showImages(claim: Claim, messages: readonly ContextMessage[]): Promise<readonly ModelMessage[]>
  /** @throws {TurnmillError} failing closed. */
  buildRouteFor(claim: Claim, purpose: Purpose, place: CallPlace): Promise<BuiltRoute>
  addSpent(claim: Claim, spent: Spent): Promise<void>
  /** The ids of all calls of a tool in this turn, in the order in which the model asked. */
  callsOf(claim: Claim, toolName: string): Promise<string[]>
  /** How often one turn may ask; 0 for never. */
  advisorUses: number
}

const NAME = 'ask_advisor'

const PROMPT =
  'You advise an assistant that is at work on a task. You see its conversation, and then its question. Answer the question: say what to do next and what to beware of, in a few sentences. You have no tools, and do not do the task yourself.'

/** One nested call without tools, by the model of the purpose `advisor`, as often as a turn may. */
export function createAdvisorTool(claim: Claim, effects: AdvisorEffects): TurnTool[] {
  if (effects.advisorUses === 0) return []
  const tool = defineTool({
    name: NAME,
    description: `Asks another model for advice where you are stuck or unsure. It sees the conversation. You may ask ${effects.advisorUses} times in one turn.`,
    inputSchema: z.strictObject({ question: z.string().trim().min(1).max(20_000) }),
    // Another answer is as good as the one that was lost.
    idempotent: true,
    readOnly: true,
    execute: async ({ question }, { step, toolCallId, signal }) => {
      const [calls, messages] = await Promise.all([effects.callsOf(claim, NAME), effects.loadContext(claim)])
      if (calls.indexOf(toolCallId) >= effects.advisorUses)
        return refusal(`the advisor was asked ${effects.advisorUses} times in this turn, expected no more`)
      const place = { step, epoch: claim.epoch, attempt: 1 }
      const built = await effects.buildRouteFor(claim, 'advisor', place)
      const advice = await ask({ claim, question, messages, built }, effects, signal)
      return advice.trim() === '' ? refusal('the advisor said nothing; go on without it') : { advice }
    },
  })
  return [{ kind: 'turn', tool }]
}

interface Question {
  claim: Claim
  question: string
  messages: readonly ContextMessage[]
  built: BuiltRoute
}

async function ask(
  { claim, question, messages, built }: Question,
  effects: AdvisorEffects,
  signal: AbortSignal,
): Promise<string> {
  const { model, maxOutputTokens } = built.facts.modelConfig
  const shown = await effects.showImages(claim, messages)
  const asked = {
    model,
    system: PROMPT,
    messages: [...shown, { role: 'user' as const, parts: [{ type: 'text' as const, text: question }] }],
    tools: [],
    maxOutputTokens,
    temperature: null,
    reasoningEffort: null,
  }
  const addSpent = (spent: Spent): Promise<void> =>
    untilCommitted(() => effects.addSpent(claim, spent), signal)
  try {
    const { text, spent } = await askModel(effects, built, asked, signal)
    await addSpent(spent)
    return text
  } catch (error) {
    if (error instanceof AskFailedError && error.spent.usage !== null) await addSpent(error.spent)
    throw error
  }
}
