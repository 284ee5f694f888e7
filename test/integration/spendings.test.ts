/** What calls beside the answers have spent is in the usage of their turn, once, whatever was said twice. */
import type { Claim, Spent } from '../../src/chats/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { TurnmillError } from '../../src/protocol/errors.ts'
import { NO_USAGE } from '../../src/protocol/usage.ts'
import { claimTurn, newChat, openChatWorld, text, type ChatWorld } from '../support/chat-world.ts'

let world: ChatWorld
beforeAll(async () => {
  world = await openChatWorld()
})
afterAll(() => world.close())

const spend = (inputTokens: number): Spent => ({
  id: newId(),
  usage: { ...NO_USAGE, inputTokens },
  costMicros: inputTokens,
})

const retry = {
  step: 1, attempts: 1, error: { code: 'provider_overloaded' as const, message: 'x', recovery: 'retry' as const },
  retryAt: new Date(0).toISOString(),
} // prettier-ignore

async function start(): Promise<Claim> {
  const { turn } = await world.chats.create(world.initiator, newChat('hi'))
  return claimTurn(world, turn.id)
}

const spentBy = async ({ turnId }: Claim) => {
  const { usage, costMicros } = await world.db.prisma.turn.findUniqueOrThrow({ where: { id: turnId } })
  return { inputTokens: (usage as { inputTokens?: number } | null)?.inputTokens, cost: Number(costMicros) }
}

/** Writes after which the turn goes on. */
const ON_THE_WAY = {
  addSpent: (claim: Claim, spent: Spent) => world.chats.addSpent(claim, spent),
  noteRetry: (claim: Claim, spent: Spent) => world.chats.noteRetry(claim, retry, spent),
  compact: (claim: Claim, spent: Spent) =>
    world.chats.compact(claim, {
      step: 0, parts: text('so far'), keep: [], modelConfigId: newId(), spent,
    }), // prettier-ignore
}

/** Writes with which it is let go. */
const LAST = {
  release: (claim: Claim, spent: Spent) => world.chats.release(claim, spent),
  backoff: (claim: Claim, spent: Spent) => world.chats.backoff(claim, { delayMs: 1, retry, spent }),
  fail: (claim: Claim, spent: Spent) =>
    world.chats.fail(claim, new TurnmillError('provider_rejected', 'refused'), spent),
  finishInterrupted: async (claim: Claim, spent: Spent) => {
    await world.chats.interrupt(world.initiator, claim.chatId)
    await world.chats.finishInterrupted(claim, null, spent)
  },
}

describe.each(Object.entries(ON_THE_WAY))('what %s says', (_, write) => {
  test.each(Object.entries(LAST))('twice, and once more by %s, is added once', async (_last, end) => {
    const claim = await start()
    const [mine, other, later] = [spend(1), spend(10), spend(100)]
    // Of two at a time, neither is forgotten for the other.
    for (const spent of [mine, other, mine, other]) await write(claim, spent)
    await world.chats.addSpent(claim, later)
    await end(claim, mine)
    // A summary stands where it stands: a second one is none.
    const all = write === ON_THE_WAY.compact ? 101 : 111
    expect(await spentBy(claim)).toEqual({ inputTokens: all, cost: all })
  })
})

test.each(Object.entries(LAST))('what %s alone says is added', async (_, end) => {
  const claim = await start()
  await end(claim, spend(5))
  expect(await spentBy(claim)).toEqual({ inputTokens: 5, cost: 5 })
})

test('only the last spendings are remembered, and none is lost', async () => {
  const claim = await start()
  for (let count = 0; count < 40; count++) await world.chats.addSpent(claim, spend(1))
  expect(await spentBy(claim)).toEqual({ inputTokens: 40, cost: 40 })
  const { spentIds } = await world.db.prisma.turn.findUniqueOrThrow({ where: { id: claim.turnId } })
  expect(spentIds).toHaveLength(16)
})
