/** A key whose row is deleted in the very moment in which a worker writes something under it. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Claim } from '../../src/chats/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { call, claimTurn, newChat, openChatWorld, step, text, type ChatWorld } from '../support/chat-world.ts'

let world: ChatWorld
beforeAll(async () => {
  world = await openChatWorld()
})
afterAll(() => world.close())

/** Begins `write` while a deletion of the key is not committed yet, and commits it once the write waits for it. */
async function whileDeleted(apiKeyId: string, write: () => Promise<unknown>): Promise<void> {
  const deleting = await world.db.pool.connect()
  try {
    await deleting.query('begin')
    const { rows } = await deleting.query<{ pid: number }>('select pg_backend_pid() as pid')
    await deleting.query('delete from api_keys where id = $1', [apiKeyId])
    const written = write()
    const settled = written.then(
      () => true,
      () => true,
    )
    const waiters = 'select from pg_stat_activity where $1 = any(pg_blocking_pids(pid))'
    const isWaiting = async () => (await world.db.pool.query(waiters, [rows[0]?.pid])).rowCount !== 0
    while (!(await Promise.race([settled, isWaiting()]))) await sleep(10)
    await deleting.query('commit')
    await written
  } finally {
    deleting.release(true)
  }
}

const result = {
  toolCallId: 'call-1',
  toolName: 'look_up',
  output: 'found',
  isError: false,
  state: 'done' as const,
}

/** What a worker writes under the key of its turn, whose first step has called a tool. */
const WRITES: Record<string, (claim: Claim) => Promise<unknown>> = {
  commitStep: (claim) => world.chats.commitStep(claim, step(2, [call('call-2')])),
  commitResults: (claim) => world.chats.commitResults(claim, 1, [result]),
  compact: (claim) =>
    world.chats.compact(claim, {
      step: 1, parts: text('so far'), keep: [], modelConfigId: newId(), spent: { usage: null, costMicros: null },
    }), // prettier-ignore
  spawn: (claim) =>
    world.chats.spawn(claim, {
      callId: 'call-1', type: 'general', title: null, parts: text('look around'), systemPrompt: null, modelConfigId: null,
    }), // prettier-ignore
  finish: (claim) => world.chats.finish(claim, step(2, text('answer'))),
}

test.each(Object.keys(WRITES))('%s is written, under no key', async (name) => {
  const { userId, apiKeyId } = await world.addUser()
  const { chat, turn } = await world.chats.create({ userId, apiKeyId }, newChat('first'))
  const claim = await claimTurn(world, turn.id)
  await world.chats.commitStep(claim, step(1, [call('call-1')]))
  await whileDeleted(apiKeyId, () => WRITES[name]!(claim))
  const family = await world.db.prisma.chat.findMany({
    where: { rootId: chat.id },
    include: { messages: true, turns: true },
  })
  const rows = family.flatMap(({ messages, turns }) => [...messages, ...turns])
  expect(rows.map((row) => row.apiKeyId)).toEqual(rows.map(() => null))
})

test('a subagent is sent nothing, neither while the key is deleted nor after it', async () => {
  const { userId, apiKeyId } = await world.addUser()
  const { turn } = await world.chats.create({ userId, apiKeyId }, newChat('first'))
  const claim = await claimTurn(world, turn.id)
  await world.chats.commitStep(claim, step(1, [call('call-1')]))
  const child = (await WRITES['spawn']!(claim)) as { id: string }
  const send = () => world.chats.messageSubagent(claim, child.id, text('more'))
  await expect(whileDeleted(apiKeyId, send)).rejects.toMatchObject({ code: 'missing_key' })
  await expect(send()).rejects.toMatchObject({ code: 'missing_key' })
  expect(await world.db.prisma.queuedMessage.count({ where: { chatId: child.id } })).toBe(0)
})
