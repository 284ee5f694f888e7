import type { Claim } from '../../src/chats/index.ts'
import { newId } from '../../src/protocol/ids.ts'

/** A first claim of a root's first turn, under a key that may be used. */
export function testClaim(fields: Partial<Claim> = {}): Claim {
  const chatId = fields.chatId ?? newId()
  const userId = fields.userId ?? newId()
  return {
    turnId: newId(), state: 'running', chatId, parentId: null, number: 1, epoch: 1, takeovers: 0, takenOver: false,
    committedSteps: 0, retry: null, pool: 'root', userId, apiKeyId: newId(), keyState: 'valid', keyOwnerId: userId,
    ownerActive: true, modelConfigId: null, chatModelConfigId: null, reasoningEffort: null, systemPrompt: null,
    snapshotVersion: 1, trigger: 'send', userMessageId: null, runningMs: 0, depth: 0, subagentType: null, clientTools: [],
    debug: false, ...fields,
  } // prettier-ignore
}
