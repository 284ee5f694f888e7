/** An agent that uses a computer: a scripted model, the whole loop, and a real Chromium on a real page. */
import type { ImagePart, MessagePart } from '../../src/protocol/messages.ts'
import { asks, call, scriptAgents, see, spawn, taskOf, type Act } from '../support/agents.ts'
import { chromiumPath } from '../support/chromium.ts'
import { serveComputerPage, SPOTS, type ComputerPage } from '../support/computer-page.ts'
import type { ScriptedCall, UpstreamRequest } from '../support/fake-upstream.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

const TASK = 'press the button'
const PNG_SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])

let page: ComputerPage
let turnmill: Turnmill
let user: TestUser

beforeAll(async () => {
  page = await serveComputerPage()
})
afterAll(() => page.stop())
beforeEach(() => page.forget())
afterEach(() => turnmill.stop())

async function start(wireFormat: 'anthropic-messages' | 'openai-responses'): Promise<void> {
  turnmill = await startTurnmill({
    wireFormat,
    environment: {
      TURNMILL_CHROMIUM_PATH: chromiumPath(),
      TURNMILL_SUBAGENTS_ENABLED: 'true',
      TURNMILL_ALLOW_PRIVATE_WEB_FETCH: 'true',
      TURNMILL_COMPUTER_WIDTH: '640',
      TURNMILL_COMPUTER_HEIGHT: '400',
    },
  })
  user = await turnmill.addUser()
}

const opens = (): ScriptedCall => call('open_page', { url: page.url })

/** A member of Anthropic's set of tools. */
const member = (name: string, input: unknown): ScriptedCall => ({
  ...call(name, input),
  native: { toolset_name: 'computer' },
})

/** An item of OpenAI's. */
const computer = (actions: object[], checks: object[] = []): ScriptedCall => ({
  ...call('computer'),
  native: { type: 'computer_call', actions, pending_safety_checks: checks },
})

const CLICK = { type: 'click', button: 'left', ...SPOTS.button }

/** Lets a parent spawn the agent that uses the computer, and wait for it. */
async function run(acts: readonly Act[]) {
  scriptAgents(turnmill.upstream, {
    manage: [asks(spawn(TASK, { type: 'computer_use' })), asks(call('wait_agent'))],
    [TASK]: acts,
  })
  const { chat, turn } = await user.client.create('manage')
  const ended = async () => (await user.client.ended(chat.id, turn.id)).state
  return { chatId: chat.id, ended }
}

const requests = (): UpstreamRequest[] =>
  turnmill.upstream.requests.filter((request) => taskOf(request) === TASK)

async function childOf(parentId: string): Promise<string> {
  const child = await turnmill.services.db.prisma.chat.findFirstOrThrow({ where: { parentId } })
  return child.id
}

const isImage = (part: MessagePart): part is ImagePart => part.type === 'image'

/** The screenshots that the messages of a chat refer to. */
async function screenshotsOf(chatId: string): Promise<ImagePart[]> {
  const messages = await user.client.messages(chatId)
  expect(JSON.stringify(messages)).not.toContain(PNG_SIGNATURE.toString('base64').slice(0, 10))
  const results = messages.flatMap(({ parts }) => parts)
  return results.flatMap((part) => (part.type === 'tool-result' ? (part.images ?? []) : [])).filter(isImage)
}

async function download(fileId: string, token: string) {
  const headers = { authorization: `Bearer ${token}` }
  const response = await fetch(`${turnmill.address}/v1/files/${fileId}`, { headers })
  return { status: response.status, bytes: Buffer.from(await response.arrayBuffer()) }
}

const isPng = (bytes: Buffer): boolean => bytes.subarray(0, 8).equals(PNG_SIGNATURE)

describe('an agent that uses a computer', () => {
  test('clicks through a real page, and Anthropic is shown what it looks like then', async () => {
    await start('anthropic-messages')
    const child = await run([
      asks(opens()),
      asks(member('left_click', { coordinate: [SPOTS.button.x, SPOTS.button.y] })),
      { type: 'answer', text: 'I pressed it' },
    ])
    await page.saw('clicked 1')
    expect(await child.ended()).toBe('completed')
    const [first, second, third] = requests()
    expect(JSON.stringify(first?.body.tools)).toContain('"type":"computer_toolset_20260801"')
    const shown = [second, third].map((request) => imagesIn(request?.body.messages))
    expect(shown.map((images) => images.length)).toEqual([1, 2])
    for (const { media_type, data } of shown.flat()) {
      expect(media_type).toBe('image/png')
      expect(isPng(Buffer.from(data, 'base64'))).toBe(true)
    }
    expect(shown[1]?.[1]?.data).not.toBe(shown[1]?.[0]?.data)
    expect(third?.headers['x-turnmill-purpose']).toBe('computer_use')

    const childId = await childOf(child.chatId)
    const screenshots = await screenshotsOf(childId)
    expect(screenshots).toEqual([1, 2].map(() => ({ type: 'image', fileId: expect.any(String) as string, mediaType: 'image/png' }))) // prettier-ignore
    const stranger = await turnmill.addUser()
    for (const [index, { fileId }] of screenshots.entries()) {
      const { status, bytes } = await download(fileId, user.token)
      expect([status, bytes.toString('base64')]).toEqual([200, shown[1]?.[index]?.data])
      expect(await download(fileId, stranger.token)).toMatchObject({ status: 404 })
    }
    const last = turnmill.upstream.requests.at(-1)
    expect(last && see(last).results.at(-1)).toMatchObject({
      agents: [{ agentId: childId, type: 'computer_use', status: 'done', answer: 'I pressed it' }],
    })
  })

  test('does the calls of one step in the order asked, and OpenAI is shown each', async () => {
    await start('openai-responses')
    const types = [{ type: 'click', button: 'left', ...SPOTS.field }, { type: 'type', text: 'one' }, { type: 'keypress', keys: ['ENTER'] }] // prettier-ignore
    const child = await run([
      asks(opens(), computer([CLICK]), computer(types), computer([CLICK])),
      { type: 'answer', text: 'done' },
    ])
    expect(await child.ended()).toBe('completed')
    await page.saw('clicked 2')
    expect(page.told).toEqual(['clicked 1', 'typed one', 'clicked 2'])
    const items = (requests().at(-1)?.body.input ?? []) as { type?: string; output?: unknown }[]
    expect(items.filter(({ type }) => type === 'computer_call_output').map(({ output }) => output)).toEqual(
      [1, 2, 3].map(() => ({
        type: 'computer_screenshot',
        image_url: expect.stringMatching(/^data:image\/png;base64,iVBORw0KGgo/) as string,
      })),
    )
    expect(await screenshotsOf(await childOf(child.chatId))).toHaveLength(4)
  })

  test.each([
    ['runs', true],
    ['does not run', false],
  ])('asks its user about what the provider holds against a call, which %s then', async (_, approved) => {
    await start('openai-responses')
    const checks = [{ id: 'sc_1', code: 'malicious_instructions', message: 'Is this wanted?' }]
    const child = await run([
      asks(opens()),
      asks(computer([CLICK], checks)),
      { type: 'answer', text: 'done' },
    ])
    for (let number = 1; requests().length < 2; number++) await turnmill.upstream.waitForRequest(number)
    const childId = await childOf(child.chatId)
    const watch = user.client.watch(childId)
    const seen = await watch.until((event) => event.type === 'action_required')
    watch.close()
    const action = seen.at(-1)?.event
    const toolCallId = action?.type === 'action_required' ? action.calls[0]?.toolCallId : undefined
    expect(action).toMatchObject({ calls: [{ toolName: 'computer', needs: 'approval' }] })
    expect(page.told).toEqual([])
    const answer = await user.client.request('POST', `/v1/chats/${childId}/tool-results`, { results: [{ toolCallId, approved }] }) // prettier-ignore
    expect(answer.status).toBeLessThan(300)
    expect(await child.ended()).toBe('completed')
    if (approved) await page.saw('clicked 1')
    expect(page.told).toEqual(approved ? ['clicked 1'] : [])
    const items = (requests().at(-1)?.body.input ?? []) as { type?: string }[]
    const output = items.find(({ type }) => type === 'computer_call_output')
    if (approved) expect(output).toMatchObject({ acknowledged_safety_checks: checks })
    else expect(output).toBeUndefined()
  })
})

interface ImageSource {
  media_type: string
  data: string
}

/** The images in tool results of Anthropic's messages. */
function imagesIn(messages: unknown): ImageSource[] {
  const blocks = ((messages ?? []) as { content: unknown }[]).flatMap(({ content }) =>
    Array.isArray(content) ? (content as { type: string; content?: unknown }[]) : [],
  )
  return blocks
    .filter(({ type }) => type === 'tool_result')
    .flatMap(({ content }) =>
      Array.isArray(content) ? (content as { type: string; source: ImageSource }[]) : [],
    )
    .filter(({ type }) => type === 'image')
    .map(({ source }) => source)
}
