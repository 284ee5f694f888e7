import {
  createAdvisorTool,
  createSubagentTools,
  fillToolBox,
  SUBAGENT_PROMPTS,
  type AdvisorEffects,
  type RetryPolicy,
  type SubagentEffects,
  type TurnProcessorDeps,
} from './agent/index.ts'
import type { Claim } from './chats/index.ts'
import type { Config } from './config.ts'
import { loadImages, storeImages } from './files/index.ts'
import {
  buildRoute,
  connectRoute,
  findModelConfig,
  readRouteFacts,
  type ReadFacts,
  type RouteRequest,
  type RoutingMode,
} from './models/index.ts'
import type { CallPlace, Gateway, ProviderType, Purpose } from './protocol/routes.ts'
import { SUBAGENT_TYPES, type SubagentType } from './protocol/tools.ts'
import { providerAdapters } from './providers/index.ts'
import type { Services } from './services.ts'
import { createPartWriter } from './streams/index.ts'
import { runTool, type Tool, type ToolSource } from './tools/index.ts'

/** What the models of a worker may use. */
export interface WorkerTools {
  source: ToolSource
  /** The tools of the computer of a chat; `null` where this worker has no computers. */
  computerFor: ((chatId: string) => readonly Tool[]) | null
}

type Effects = Omit<TurnProcessorDeps['effects'], 'stopping'>

/** The effects of turns, on the services of this process. */
export function createTurnEffects(services: Services, gateway: Gateway | null, tools: WorkerTools): Effects {
  const { chats, config, db } = services
  const shared = createModelEffects(services, gateway)
  const ours: AdvisorEffects & SubagentEffects = {
    ...shared,
    addSpent: chats.addSpent,
    advisorUses: config.advisorUses,
    spawn: chats.spawn,
    messageSubagent: chats.messageSubagent,
    interruptSubagent: chats.interruptSubagent,
    listAgents: chats.subagents,
    findModel: (name) => findModelConfig(db, name),
    subagentTypes: subagentTypesOf(config, tools),
    subagentDepth: config.subagentDepth,
  }
  return {
    ...shared,
    openCalls: chats.openCalls,
    openTools: async (claim, signal) => {
      const { chatId, userId } = claim
      const listed = await tools.source.toolsFor({ chatId, userId }, signal)
      const computer = claim.subagentType === 'computer_use' ? (tools.computerFor?.(chatId) ?? []) : []
      return fillToolBox(claim, {
        server: [...computer, ...listed],
        turn: [...createSubagentTools(claim, ours), ...createAdvisorTool(claim, ours)],
      })
    },
    runTool: (tool, input, context) => runTool(tool, input, context, { outputBytes: 262_144 }),
    storeImages: ({ userId, chatId }, images) =>
      storeImages(db, { userId, chatId, limitBytes: config.filesPerUserBytes }, images),
    requireAction: (claim, calls) => chats.requireAction(claim, calls, config.actionDeadlineMs),
    listAgents: chats.subagents,
    wait: chats.wait,
    waitingDeadlineMs: config.waitingDeadlineMs,
    familySpent: chats.familySpent,
    turnLimits: {
      steps: config.turnSteps,
      runningMs: config.turnRunningMs,
      familySteps: config.familySteps,
      familyCostMicros: config.familyCostMicros,
    },
    retries: createRetryPolicy(config),
  }
}

const subagentTypesOf = (config: Config, { computerFor }: WorkerTools): readonly SubagentType[] =>
  config.subagents ? SUBAGENT_TYPES.filter((type) => type !== 'computer_use' || computerFor !== null) : []

/** What a call of a model takes, for whatever purpose. */
function createModelEffects(services: Services, gateway: Gateway | null) {
  const { chats, config, db, encryption, logger, parts } = services
  const mode: RoutingMode = { gatewayRouting: config.gatewayRouting, gatewayPresent: gateway !== null }
  const readFacts: ReadFacts = (request) => readRouteFacts(db, encryption, request)
  const effects: Pick<
    Effects,
    | 'loadContext'
    | 'showImages'
    | 'systemPromptOf'
    | 'buildRoute'
    | 'buildRouteFor'
    | 'callModel'
    | 'openParts'
    | 'deadlines'
  > = {
    loadContext: (claim) => chats.context(claim.chatId),
    showImages: (claim, messages) => loadImages(db, claim.userId, messages),
    systemPromptOf: ({ subagentType }) => (subagentType === null ? null : SUBAGENT_PROMPTS[subagentType]),
    buildRoute: (claim, place) => buildRoute(mode, readFacts, ownRequest(claim, place), claim),
    buildRouteFor: (claim, purpose, place) =>
      buildRoute(mode, readFacts, sideRequest(claim, purpose, place), claim),
    callModel: (route, request, signal) =>
      providerAdapters[route.wireFormat]({
        connection: connectRoute(route, gateway, services.providerFetch),
        request,
        signal,
      }),
    openParts: (claim, step, attempt) =>
      createPartWriter(
        {
          chatId: claim.chatId,
          snapshotVersion: claim.snapshotVersion,
          turn: claim.number,
          step,
          epoch: claim.epoch,
          attempt,
        },
        {
          log: parts,
          flushMs: config.partFlushMs,
          flushBytes: config.partFlushBytes,
          onError: (error) => logger.debug({ error }, 'parts were not logged'),
        },
      ),
    deadlines: {
      firstPartMs: config.firstPartTimeoutMs,
      reasoningFirstPartMs: config.reasoningFirstPartTimeoutMs,
      silenceMs: config.silenceTimeoutMs,
      attemptMs: config.attemptTimeoutMs,
    },
  }
  return effects
}

const PURPOSE_OF: Record<SubagentType, Purpose> = {
  general: 'subagent_general',
  explore: 'subagent_explore',
  computer_use: 'computer_use',
}

/** The types of providers whose models can use a computer. */
const COMPUTER_PROVIDERS: readonly ProviderType[] = ['anthropic', 'openai']

/** The route of the turn's own steps. */
function ownRequest(claim: Claim, place: CallPlace): RouteRequest {
  const purpose = claim.subagentType === null ? 'chat' : PURPOSE_OF[claim.subagentType]
  return {
    ...placeOf(claim, place),
    purpose,
    explicitModelConfigId: claim.modelConfigId,
    chatModelConfigId: claim.chatModelConfigId,
    ...(purpose === 'computer_use' && { providerType: COMPUTER_PROVIDERS }),
  }
}

/** The route of a call beside the steps: where nobody chose a model for the purpose, it is the turn's own. */
const sideRequest = (claim: Claim, purpose: Purpose, place: CallPlace): RouteRequest => ({
  ...placeOf(claim, place),
  purpose,
  explicitModelConfigId: null,
  chatModelConfigId: claim.modelConfigId ?? claim.chatModelConfigId,
})

const placeOf = ({ chatId, turnId, userId }: Claim, place: CallPlace) => ({
  chatId,
  turnId,
  chatUserId: userId,
  place,
})

/** The longest wait that a provider may ask a turn for, in ms. */
const GIVE_UP_ABOVE_MS = 600_000

const createRetryPolicy = (config: Config): RetryPolicy => ({
  firstMs: config.retryFirstMs,
  maximumMs: config.retryMaximumMs,
  attempts: config.retryAttempts,
  backoffAboveMs: config.backoffAboveMs,
  giveUpAboveMs: GIVE_UP_ABOVE_MS,
  random: Math.random,
})
