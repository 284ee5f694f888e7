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
import type { Config } from './config/index.ts'
import { loadImages, storeImages } from './files/index.ts'
import { createModelCalls } from './model-calls.ts'
import { findModelConfig, type RouteOptions, type RouteRequest } from './models/index.ts'
import { COMPUTER_PROVIDER_TYPES, type CallPlace, type Purpose } from './protocol/routes.ts'
import { SUBAGENT_TYPES, type SubagentType } from './protocol/tools.ts'
import type { Services } from './services.ts'
import { createPartWriter } from './streams/index.ts'
import { runTool } from './tools/index.ts'
import type { WorkerTools } from './worker-tools.ts'

type Effects = Omit<TurnProcessorDeps['effects'], 'stopping'>

/** The effects of turns, on the services of this process. */
export function createTurnEffects(services: Services, tools: WorkerTools): Effects {
  const { chats, config, db, logger } = services
  const shared = createModelEffects(services)
  const ours: AdvisorEffects & SubagentEffects = {
    ...shared,
    addSpent: (claim, spent) => chats.addSpent(claim, spent),
    callsOf: chats.callsOf,
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
    onUncompacted: ({ turnId }, step, { code }) =>
      logger.warn({ turnId, step, code }, 'no summary could be had: the turn goes on uncompacted'),
    openCalls: chats.openCalls,
    openTools: async (claim, signal) => {
      const { chatId, userId } = claim
      const owner = { chatId, userId }
      return fillToolBox(claim, {
        server: await tools.source.toolsFor(owner, signal),
        computer: tools.computers?.tools(owner) ?? [],
        turn: [...createSubagentTools(claim, ours), ...createAdvisorTool(claim, ours)],
      })
    },
    runTool,
    outputBytes: config.toolOutputBytes,
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

const subagentTypesOf = (config: Config, { computers }: WorkerTools): readonly SubagentType[] =>
  config.subagents ? SUBAGENT_TYPES.filter((type) => type !== 'computer_use' || computers !== null) : []

/** What a call of a model takes, for whatever purpose. */
function createModelEffects(services: Services) {
  const { chats, config, db, logger, parts } = services
  const calls = createModelCalls(services)
  return {
    ...calls,
    loadContext: (claim) => chats.context(claim.chatId),
    showImages: (claim, messages) => loadImages(db, claim.userId, messages),
    systemPromptOf: ({ subagentType }) => (subagentType === null ? null : SUBAGENT_PROMPTS[subagentType]),
    buildRoute: (claim, place) => calls.buildRoute(ownRequest(claim, place), optionsOf(claim)),
    buildRouteFor: (claim, purpose, place) =>
      calls.buildRoute(sideRequest(claim, purpose, place), optionsOf(claim)),
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
  } satisfies Partial<Effects>
}

const optionsOf = ({ apiKeyId, keyOwnerId, debug }: Claim): RouteOptions => ({
  apiKeyId,
  keyOwnerId,
  recordHttp: debug,
})

const PURPOSE_OF: Record<SubagentType, Purpose> = {
  general: 'subagent_general',
  explore: 'subagent_explore',
  computer_use: 'computer_use',
}

/** The route of the turn's own steps. */
function ownRequest(claim: Claim, place: CallPlace): RouteRequest {
  const purpose = claim.subagentType === null ? 'chat' : PURPOSE_OF[claim.subagentType]
  return {
    ...placeOf(claim, place),
    purpose,
    explicitModelConfigId: claim.modelConfigId,
    chatModelConfigId: claim.chatModelConfigId,
    ...(purpose === 'computer_use' && { providerType: COMPUTER_PROVIDER_TYPES }),
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
