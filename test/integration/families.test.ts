/** Parents and subagents: who waits for whom, who is stopped with whom, and in which order they are locked. */
import type { ChatView } from '../../src/protocol/views.ts'
import type { Claim } from '../../src/chats/index.ts'
import { query, statement } from '../../src/db/index.ts'
import { TurnmillError } from '../../src/protocol/errors.ts'
import {
  call,
  claimTurn,
  message,
  newChat,
  openChatWorld,
  readFamily,
  step,
  text,
  type ChatWorld,
} from '../support/chat-world.ts'

let world: ChatWorld
beforeAll(async () => {
  world = await openChatWorld()
})
afterAll(() => world.close())

/** Nothing may go wrong unseen. */
const rethrow = (error: unknown): never => {
  throw error as Error
}

const NOTHING = { usage: null, costMicros: null }

interface Parent {
  chatId: string
  turnId: string
  messageId: string
  claim: Claim
}

const CALLS = ['call-1', 'call-2', 'call-3', 'call-4']

/** A chat whose worker has just committed a step with four calls. */
async function startParent(): Promise<Parent> {
  const { chat, turn, message: first } = await world.chats.create(world.initiator, newChat('first'))
  const claim = await claimTurn(world, turn.id)
  await world.chats.commitStep(claim, step(1, CALLS.map(call)))
  return { chatId: chat.id, turnId: turn.id, messageId: first.id, claim }
}

const spawn = (claim: Claim, callId: string): Promise<ChatView> =>
  world.chats.spawn(claim, {
    callId, type: 'general', title: null, parts: text(`do ${callId}`), systemPrompt: null, modelConfigId: null,
  }) // prettier-ignore

/** Takes the turn of a chat as a worker does. */
async function claimActive(chatId: string): Promise<Claim> {
  const chat = await get(chatId)
  return claimTurn(world, chat.activeTurnId ?? '')
}

const get = (chatId: string): Promise<ChatView> => world.chats.get(chatId, world.initiator.userId)

const finish = (claim: Claim, last = 1): Promise<void> => world.chats.finish(claim, step(last, text('done')))

const fail = (claim: Claim): Promise<void> =>
  world.chats.fail(claim, new TurnmillError('provider_rejected', 'refused'), {
    usage: null,
    costMicros: null,
  })

const interrupt = (chatId: string): Promise<unknown> => world.chats.interrupt(world.initiator, chatId)

describe('a subagent', () => {
  test('is a chat of its owner, with a turn under the key of its parent’s turn', async () => {
    const { chatId, claim } = await startParent()
    const child = await spawn(claim, 'call-1')
    expect(child).toMatchObject({ parentId: chatId, status: 'pending' })
    const taken = await claimActive(child.id)
    expect(taken).toMatchObject({ pool: 'subagent', apiKeyId: world.initiator.apiKeyId, parentId: chatId })
    expect(await world.chats.context(child.id)).toMatchObject([{ role: 'user', parts: text('do call-1') }])
  })

  test('is spawned once by a call, whoever asks again after a crash', async () => {
    const { claim } = await startParent()
    const child = await spawn(claim, 'call-1')
    expect((await spawn(claim, 'call-1')).id).toBe(child.id)
    expect((await spawn(claim, 'call-2')).id).not.toBe(child.id)
    await expect(spawn(claim, 'call-9')).rejects.toMatchObject({ code: 'invalid_request' })
  })

  test('is not spawned by a worker that has lost the turn', async () => {
    const { claim } = await startParent()
    await expect(spawn({ ...claim, epoch: claim.epoch + 1 }, 'call-1')).rejects.toMatchObject({
      code: 'turn_fenced',
    })
  })

  test.each(['idle', 'running'] as const)(
    'that is %s is neither told nor stopped by a worker that has lost the turn of its parent',
    async (status) => {
      const { chatId, claim } = await startParent()
      const child = await spawn(claim, 'call-1')
      const childClaim = await claimActive(child.id)
      if (status === 'idle') await finish(childClaim)
      const demandRefused = async (lost: Claim): Promise<void> => {
        const before = await readFamily(world.db, chatId)
        for (const steer of [
          world.chats.messageSubagent(lost, child.id, text('more')),
          world.chats.interruptSubagent(lost, child.id),
        ])
          await expect(steer).rejects.toMatchObject({ code: 'turn_fenced' })
        expect(await readFamily(world.db, chatId)).toEqual(before)
      }
      await demandRefused({ ...claim, epoch: claim.epoch - 1 })
      await interrupt(chatId)
      await demandRefused(claim)
    },
  )

  test('spawns its own down to the limit', async () => {
    const { claim } = await startParent()
    const child = await claimActive((await spawn(claim, 'call-1')).id)
    await world.chats.commitStep(child, step(1, [call('call-1')]))
    const grandchild = await claimActive((await spawn(child, 'call-1')).id)
    await world.chats.commitStep(grandchild, step(1, [call('call-1')]))
    await expect(spawn(grandchild, 'call-1')).rejects.toMatchObject({ code: 'subagent_limit' })
  })
})

describe('a parent that waits', () => {
  test('goes on when the last of its subagents has ended, however that ended', async () => {
    const { chatId, claim } = await startParent()
    const children = [
      await spawn(claim, 'call-1'),
      await spawn(claim, 'call-2'),
      await spawn(claim, 'call-3'),
    ]
    expect(await world.chats.wait(claim, children.map(({ id }) => id), 60_000)).toBe(true) // prettier-ignore
    const [first, second, third] = await Promise.all(
      children.slice(0, 2).map(({ id }) => claimActive(id)),
    ).then((claims) => [...claims, children[2]] as const)
    await finish(first as Claim)
    expect(await get(chatId)).toMatchObject({ status: 'waiting' })
    await fail(second as Claim)
    expect(await get(chatId)).toMatchObject({ status: 'waiting' })
    await interrupt((third as ChatView).id)
    expect(await get(chatId)).toMatchObject({ status: 'pending' })
    expect(await claimActive(chatId)).toMatchObject({ turnId: claim.turnId, epoch: 2, committedSteps: 1 })
  })

  test('does not wait where none is at work', async () => {
    const { chatId, claim } = await startParent()
    const child = await spawn(claim, 'call-1')
    await finish(await claimActive(child.id))
    expect(await world.chats.wait(claim, [child.id], 60_000)).toBe(false)
    expect(await get(chatId)).toMatchObject({ status: 'running' })
  })

  test('does not wait for chats that are not its own', async () => {
    const [one, other] = [await startParent(), await startParent()]
    const child = await spawn(other.claim, 'call-1')
    expect(await world.chats.wait(one.claim, [child.id, other.chatId], 60_000)).toBe(false)
  })

  test('goes on at its deadline, and when what it waits for is deleted', async () => {
    const late = await startParent()
    await world.chats.wait(late.claim, [(await spawn(late.claim, 'call-1')).id], 1)
    const left = await startParent()
    const child = await spawn(left.claim, 'call-1')
    await world.chats.wait(left.claim, [child.id], 60_000)
    await world.chats.delete(world.initiator, child.id)
    expect(await get(left.chatId)).toMatchObject({ status: 'pending' })
    expect(await world.chats.expireWaits(500, rethrow)).toBe(1)
    expect(await get(late.chatId)).toMatchObject({ status: 'pending' })
  })

  test('is found by the reconciler where its resumption was lost', async () => {
    const { chatId, claim } = await startParent()
    const child = await spawn(claim, 'call-1')
    await world.chats.wait(claim, [child.id], 60_000)
    // As if the process had died between the child's commit and the parent's.
    const orphaned = { ...(await claimActive(child.id)), parentId: null }
    await finish(orphaned)
    expect(await get(chatId)).toMatchObject({ status: 'waiting' })
    expect(await world.chats.expireWaits(500, rethrow)).toBe(1)
    expect(await get(chatId)).toMatchObject({ status: 'pending' })
  })
})

describe('a cascade', () => {
  /** A parent with a running child, which has a pending child of its own, and a queue on each. */
  async function startFamily() {
    const parent = await startParent()
    const child = await spawn(parent.claim, 'call-1')
    const childClaim = await claimActive(child.id)
    await world.chats.commitStep(childClaim, step(1, [call('call-1')]))
    const grandchild = await spawn(childClaim, 'call-1')
    for (const { id: chatId } of [child, grandchild])
      await world.chats.send(world.initiator, { ...message('queued'), chatId, whenBusy: 'queue' })
    return { parent, child, childClaim, grandchild }
  }

  const statuses = async (...chats: { id: string }[]): Promise<string[]> =>
    Promise.all(chats.map(async ({ id }) => (await get(id)).status))

  test('of an interrupt stops all below and drops their queues', async () => {
    const { parent, child, childClaim, grandchild } = await startFamily()
    await interrupt(parent.chatId)
    expect(await statuses({ id: parent.chatId }, child, grandchild)).toEqual(['interrupting', 'interrupting', 'idle']) // prettier-ignore
    expect(await world.chats.queue(grandchild.id)).toEqual([])
    await world.chats.finishInterrupted(childClaim, null, NOTHING)
    await world.chats.finishInterrupted(parent.claim, null, NOTHING)
    expect(await statuses({ id: parent.chatId }, child)).toEqual(['idle', 'idle'])
  })

  test('of a failing parent stops all below', async () => {
    const { parent, child, grandchild } = await startFamily()
    await fail(parent.claim)
    expect(await statuses({ id: parent.chatId }, child, grandchild)).toEqual(['failed', 'interrupting', 'idle']) // prettier-ignore
  })

  test('does not follow a parent that completed, whose subagents go on', async () => {
    const { parent, child } = await startFamily()
    await world.chats.commitResults(parent.claim, 1, [])
    await finish(parent.claim, 2)
    expect(await statuses({ id: parent.chatId }, child)).toEqual(['idle', 'running'])
    await interrupt(parent.chatId)
    expect(await statuses({ id: parent.chatId }, child)).toEqual(['idle', 'interrupting'])
  })

  test('of an edit stops the subagents of what it removes, and no others', async () => {
    const { parent, child } = await startFamily()
    await world.chats.commitResults(parent.claim, 1, [])
    await finish(parent.claim, 2)
    const sent = await world.chats.send(world.initiator, { ...message('second'), chatId: parent.chatId, whenBusy: 'queue' }) // prettier-ignore
    if (!('turn' in sent)) throw new Error('the second message was queued')
    const second = await claimTurn(world, sent.turn.id)
    await world.chats.commitStep(second, step(1, CALLS.map(call)))
    const later = await spawn(second, 'call-2')
    await world.chats.edit(world.initiator, { ...message('other'), chatId: parent.chatId, messageId: sent.message.id }) // prettier-ignore
    expect(await statuses(child, later)).toEqual(['running', 'idle'])
    await world.chats.edit(world.initiator, { ...message('new'), chatId: parent.chatId, messageId: parent.messageId }) // prettier-ignore
    expect(await statuses(child)).toEqual(['interrupting'])
  })

  test('of a deletion takes the whole family away', async () => {
    const { parent, child, childClaim, grandchild } = await startFamily()
    await world.chats.delete(world.initiator, parent.chatId)
    for (const { id } of [{ id: parent.chatId }, child, grandchild])
      await expect(get(id)).rejects.toMatchObject({ code: 'not_found' })
    await expect(finish(childClaim, 2)).rejects.toMatchObject({ code: 'turn_fenced' })
  })
})

describe('a family', () => {
  test('is archived from its root, at rest or not at all', async () => {
    const { chatId, claim } = await startParent()
    const child = await spawn(claim, 'call-1')
    await world.chats.commitResults(claim, 1, [])
    await finish(claim, 2)
    const archive = (id: string, archived: boolean) => world.chats.change(world.initiator, id, { archived })
    await expect(archive(chatId, true)).rejects.toMatchObject({ code: 'chat_busy' })
    expect(await get(chatId)).toMatchObject({ archivedAt: null })
    await finish(await claimActive(child.id))
    await expect(archive(child.id, true)).rejects.toMatchObject({ code: 'move_refused' })
    await archive(chatId, true)
    expect((await get(child.id)).archivedAt).not.toBeNull()
    await expect(
      world.chats.send(world.initiator, { ...message('late'), chatId: child.id, whenBusy: 'queue' }),
    ).rejects.toMatchObject({ code: 'chat_archived' })
    await archive(chatId, false)
    expect(await get(child.id)).toMatchObject({ archivedAt: null, status: 'idle' })
  })
})

/** What may be refused in a race: it came too late. */
const tooLate = (error: unknown): void => {
  const code = (error as TurnmillError).code
  if (!['turn_fenced', 'not_found'].includes(code)) throw error as Error
}

const deadlocks = statement(
  'test/deadlocks',
  'select deadlocks::int from pg_stat_database where datname = current_database()',
)
const stranded = statement(
  'test/stranded',
  `select t.id from turns t where t.state = 'waiting'
    and not exists (select 1 from chats c where c.id = any(t.awaits) and c.active_turn_id is not null)`,
)
const orphans = statement(
  'test/orphans',
  `select child.id from chats child join turns t on t.id = child.spawned_by_turn_id
    where t.state in ('interrupted', 'failed', 'superseded') and child.status in ('pending', 'running', 'requires_action', 'waiting')`,
)

describe('a stop of a parent at the moment of', () => {
  const ROUNDS = 15

  /** A parent with a running child that has a message queued and a call open. */
  async function startPair() {
    const parent = await startParent()
    const child = await spawn(parent.claim, 'call-1')
    const claim = await claimActive(child.id)
    await world.chats.commitStep(claim, step(1, [call('call-1')]))
    const send = (whenBusy: 'queue' | 'interrupt') =>
      world.chats.send(world.initiator, { ...message('queued'), chatId: child.id, whenBusy })
    await send('queue')
    const [first] = (await world.chats.messages(child.id, { limit: 1, after: null })).items
    const edited = { ...message('edited'), chatId: child.id, messageId: first?.id ?? '' }
    return {
      parent,
      acts: {
        'an edit of the child': () => world.chats.edit(world.initiator, edited),
        'a spawn by the child': () => spawn(claim, 'call-1'),
        'the end of the child’s turn': () => finish(claim, 2),
        'a send to the child that interrupts': () => send('interrupt'),
        'a deletion of the child': () => world.chats.delete(world.initiator, child.id),
        'a renewal of all leases': () => world.chats.renew([claim, parent.claim]),
        'a message of the parent to the child': () =>
          world.chats.messageSubagent(parent.claim, child.id, text('more')),
        'a stop of the child by the parent': () => world.chats.interruptSubagent(parent.claim, child.id),
      },
    }
  }

  const ACTS = [
    'an edit of the child', 'a spawn by the child', 'the end of the child’s turn', 'a send to the child that interrupts',
    'a deletion of the child', 'a renewal of all leases', 'a message of the parent to the child',
    'a stop of the child by the parent',
  ] as const // prettier-ignore

  test.each(ACTS)('%s meets no deadlock', async (act) => {
    const countDeadlocks = async () =>
      (await query<{ deadlocks: number }>(world.db, deadlocks()))[0]?.deadlocks
    const before = await countDeadlocks()
    for (let round = 0; round < ROUNDS; round++) {
      const { parent, acts } = await startPair()
      const late = new Promise((resolve) => setTimeout(resolve, round % 3)).then(() =>
        interrupt(parent.chatId),
      )
      await Promise.all([acts[act]().catch(tooLate), late])
    }
    expect(await countDeadlocks()).toBe(before)
  })
})

describe('600 races of subagents that end with parents that are interrupted, edited or deleted (Q12)', () => {
  const RACES = 600
  const AT_ONCE = 8
  const PARENTS = ['interrupt', 'edit', 'nothing', 'delete', 'interrupt the child'] as const

  /** What a worker does that was told to stop in the middle of its last write. */
  const finishOrStop = (claim: Claim): Promise<void> =>
    finish(claim).catch(() => world.chats.finishInterrupted(claim, null, NOTHING).catch(tooLate))

  async function race(number: number): Promise<void> {
    const { chatId, messageId, claim } = await startParent()
    const children = await Promise.all(CALLS.slice(0, 1 + (number % 4)).map((callId) => spawn(claim, callId)))
    const claims = await Promise.all(children.map(({ id }) => claimActive(id)))
    const waits = world.chats.wait(claim, children.map(({ id }) => id), 600_000).catch(tooLate) // prettier-ignore
    // Half of the races begin while the parent is still on its way into waiting.
    if (number % 2 === 0) await waits
    const acts = {
      nothing: () => Promise.resolve(),
      interrupt: () => interrupt(chatId),
      edit: () => world.chats.edit(world.initiator, { ...message('other'), chatId, messageId }),
      delete: () => world.chats.delete(world.initiator, chatId),
      'interrupt the child': () => interrupt(children[0]?.id ?? ''),
    }
    const act = acts[PARENTS[number % PARENTS.length] ?? 'nothing']
    await Promise.all([...claims.map((one, index) => (index % 3 === 2 ? fail(one).catch(() => finishOrStop(one)) : finishOrStop(one))), act(), waits]) // prettier-ignore
  }

  test('leave nobody stranded and meet no deadlock', async () => {
    for (let first = 0; first < RACES; first += AT_ONCE)
      await Promise.all(
        Array.from({ length: Math.min(AT_ONCE, RACES - first) }, (_, index) => race(first + index)),
      )
    expect(await query(world.db, stranded())).toEqual([])
    expect(await query(world.db, orphans())).toEqual([])
    expect(await query(world.db, deadlocks())).toEqual([{ deadlocks: 0 }])
  }, 120_000)
})
