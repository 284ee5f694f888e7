/** What counts together: a turn that a user began, and all that it has set off. */
import { asks, call, scriptAgents, spawn, taskOf, type Act } from '../support/agents.ts'
import { hold } from '../support/fake-upstream.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

let turnmill: Turnmill
let user: TestUser

beforeAll(async () => {
  turnmill = await startTurnmill({
    environment: { TURNMILL_SUBAGENTS_ENABLED: 'true', TURNMILL_FAMILY_STEPS: '8' },
  })
})
afterAll(() => turnmill.stop())
beforeEach(async () => {
  turnmill.upstream.reset()
  user = await turnmill.addUser()
})

const script = (agents: Record<string, readonly Act[]>): void => scriptAgents(turnmill.upstream, agents)

const callsOf = (task: string): number =>
  turnmill.upstream.requests.filter((request) => taskOf(request) === task).length

const answers: Act = { type: 'answer' }
const waits = (): Act => asks(call('wait_agent'))
const forever = (): Act[] => Array.from({ length: 50 }, () => asks(call('list_agents')))
const tells: Act = ({ agents }) => asks(call('message_agent', { agentId: agents[0], message: 'more' }))

async function onlyChildOf(parentId: string): Promise<string> {
  const { id } = await turnmill.services.db.prisma.chat.findFirstOrThrow({ where: { parentId } })
  return id
}

/** Runs a root's first turn to its end. */
async function create(): Promise<string> {
  const { chat, turn } = await user.client.create('manage')
  expect(await user.client.ended(chat.id, turn.id)).toMatchObject({ state: 'completed' })
  return chat.id
}

/** Runs a further turn of a chat to its end. */
async function send(chatId: string): Promise<void> {
  const sent = await user.client.send(chatId, 'again')
  if (!('turn' in sent)) throw new Error(`chat ${chatId} is busy`)
  expect(await user.client.ended(chatId, sent.turn.id)).toMatchObject({ state: 'completed' })
}

/** The turns of a chat once none of them goes on, oldest first: how they ended. */
async function endings(chatId: string): Promise<unknown[]> {
  await user.client.settled(chatId)
  const turns = await user.client.turns(chatId)
  return turns
    .toSorted((one, other) => one.number - other.number)
    .map(({ state, error }) => error?.code ?? state)
}

test('a child that goes on after its root has begun another turn counts to the one that set it off', async () => {
  const gate = hold()
  const [first, ...others] = forever()
  script({ manage: [asks(spawn('dig'))], dig: [{ ...(first as object), gate, gateAt: 0 } as Act, ...others] })
  const chatId = await create()
  await send(chatId)
  gate.release()
  expect(await endings(await onlyChildOf(chatId))).toEqual(['step_limit'])
  expect(callsOf('dig')).toBe(6)
})

test('so does all that such a child sets off', async () => {
  const gate = hold()
  script({
    manage: [asks(spawn('dig'))],
    dig: [{ ...asks(spawn('drill')), gate, gateAt: 0 }, waits()],
    drill: forever(),
  })
  const chatId = await create()
  await send(chatId)
  gate.release()
  const childId = await onlyChildOf(chatId)
  expect(await endings(childId)).toEqual(['step_limit'])
  expect(await endings(await onlyChildOf(childId))).toEqual(['step_limit'])
  expect(callsOf('drill')).toBe(4)
})

test('a turn of a child that its user begins counts by itself, however often', async () => {
  script({ manage: [asks(spawn('dig')), waits()] })
  const chatId = await create()
  const childId = await onlyChildOf(chatId)
  for (let sent = 0; sent < 8; sent++) await send(childId)
  await send(chatId)
  await send(childId)
})

test('a turn of a child that its parent’s message begins counts to the parent’s turn', async () => {
  script({ manage: [asks(spawn('dig')), waits(), answers, tells, answers], dig: [answers, ...forever()] })
  const chatId = await create()
  await send(chatId)
  expect(await endings(await onlyChildOf(chatId))).toEqual(['completed', 'step_limit'])
  expect(callsOf('dig')).toBe(1 + 6)
})

test('so does one whose message waited in the queue until that turn had ended', async () => {
  const gate = hold()
  script({
    manage: [asks(spawn('dig')), tells],
    dig: [{ type: 'answer', gate, gateAt: 0 }, ...forever()],
  })
  const chatId = await create()
  await send(chatId)
  gate.release()
  expect(await endings(await onlyChildOf(chatId))).toEqual(['completed', 'step_limit'])
  expect(callsOf('dig')).toBe(5)
})
