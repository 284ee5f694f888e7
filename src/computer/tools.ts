import type { ComputerAction, ComputerInput } from '../protocol/computer.ts'
import { COMPUTER_TOOL } from '../protocol/tools.ts'
import type { Tool, ToolContext, ToolImage, ToolOutcome, ToolOwner } from '../tools/contract.ts'
import { ComputerFailure, type ComputerDriver, type ComputerSession } from './driver.ts'
import { checkPageInput, createComputerCheck, LIMITS } from './input.ts'
import { createSessions, type DisplayUse, type SessionsOptions } from './sessions.ts'

/** The tools of an agent that uses a computer. */
export interface ComputerTools {
  tools(owner: ToolOwner): readonly Tool[]
  /** Closes a chat's display, if there is one: for when its agent is done. */
  release(chatId: string): Promise<void>
  stop(): Promise<void>
}

export const OPEN_PAGE_TOOL = 'open_page'

/** How long the actions of one call may take, in ms; the last one may be under way by then. */
const ACTIONS_MS = 90_000

/** How long a call may take, in ms: starting the browser, actions, a screenshot. */
const CALL_MS = 180_000

/** What is told of an address at most. */
const ADDRESS_LENGTH = 500

/** `computer`, and `open_page`, since a display has no address bar. Both answer with what the display shows then. */
export function createComputerTools(driver: ComputerDriver, options: SessionsOptions): ComputerTools {
  const sessions = createSessions(driver, options)

  async function onDisplay(
    { chatId, signal }: ToolContext,
    work: (session: ComputerSession) => Promise<void>,
    toldIfFresh: readonly string[] = [],
  ): Promise<ToolOutcome> {
    const use = ({ session, fresh }: DisplayUse): Promise<ToolOutcome> =>
      actAndLook(session, { signal, work, told: fresh ? toldIfFresh : [] })
    try {
      return await sessions.use(chatId, signal, use)
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof ComputerFailure) return outcomeOf([sentence(error.message)], true, [])
      throw error
    }
  }

  const common = {
    readOnly: false,
    needsApproval: () => false,
    timeoutMs: CALL_MS,
    // There is one display.
    sequence: COMPUTER_TOOL,
  }
  const tools: readonly Tool[] = [
    {
      ...common,
      definition: { kind: 'computer', name: COMPUTER_TOOL, ...driver.size },
      idempotent: false,
      check: createComputerCheck(driver.size),
      execute: (input, context) =>
        onDisplay(
          context,
          (session) => performAll(session, (input as ComputerInput).actions, context.signal),
          [FRESH],
        ),
    },
    {
      ...common,
      definition: OPEN_PAGE,
      // Opening a page asks for it, and changes nothing.
      idempotent: true,
      check: checkPageInput,
      execute: (input, context) =>
        onDisplay(context, (session) => session.goto((input as { url: string }).url, context.signal)),
    },
  ]

  return { tools: () => tools, release: sessions.release, stop: sessions.stop }
}

const FRESH = `The browser was started for this call and shows an empty page: whatever was open before is lost. Open a page with ${OPEN_PAGE_TOOL}.`

const OPEN_PAGE: Tool['definition'] = {
  kind: 'function',
  name: OPEN_PAGE_TOOL,
  description:
    'Opens a page in the browser that the computer shows, in place of the one that is open, and answers with a screenshot.',
  inputSchema: {
    type: 'object',
    properties: {
      url: {
        type: 'string',
        maxLength: LIMITS.urlLength,
        description: 'The whole address, with http:// or https://',
      },
    },
    required: ['url'],
    additionalProperties: false,
  },
}

/** In order; what follows a failure is not done. */
async function performAll(
  session: ComputerSession,
  actions: readonly ComputerAction[],
  signal: AbortSignal,
): Promise<void> {
  const endAt = performance.now() + ACTIONS_MS
  for (const [index, action] of actions.entries()) {
    const which = `action ${index + 1} of ${actions.length} (${action.type})`
    if (performance.now() > endAt)
      throw new ComputerFailure(
        `${which} was not done: the ones before it took more than ${ACTIONS_MS / 1000} s`,
      )
    try {
      await session.perform(action, signal)
    } catch (error) {
      if (!(error instanceof ComputerFailure)) throw error
      const message = `${which} failed: ${error.message}${index + 1 < actions.length ? '; what follows it was not done' : ''}`
      throw new ComputerFailure(message, { lost: error.lost, cause: error })
    }
  }
}

interface Act {
  signal: AbortSignal
  work(session: ComputerSession): Promise<void>
  /** What is to be said beside how it went. */
  told: readonly string[]
}

/** Does the work and looks at the display: also if the work failed, at what has become of it. */
async function actAndLook(session: ComputerSession, { signal, work, told }: Act): Promise<ToolOutcome> {
  const failure = await failureOf(() => work(session))
  const image = await look(session, signal, failure)
  const place = `The page is at ${session.address().slice(0, ADDRESS_LENGTH)}`
  return outcomeOf([sentence(failure ?? 'done'), place, ...told, ...session.takeNotes()], failure !== null, [
    image,
  ])
}

/** `null` where there was none. @throws what leaves nothing to look at. */
async function failureOf(work: () => Promise<void>): Promise<string | null> {
  try {
    await work()
    return null
  } catch (error) {
    if (error instanceof ComputerFailure && !error.lost) return error.message
    throw error
  }
}

/** @throws {ComputerFailure} as lost where nothing can be seen: a page that hangs is best left behind. */
async function look(
  session: ComputerSession,
  signal: AbortSignal,
  failure: string | null,
): Promise<ToolImage> {
  try {
    return { mediaType: 'image/png', bytes: await session.screenshot(signal) }
  } catch (error) {
    if (!(error instanceof ComputerFailure)) throw error
    const before = failure === null ? '' : `${failure}. `
    const message = `${before}No screenshot could be taken (${error.message}), so the browser was closed`
    throw new ComputerFailure(message, { lost: true, cause: error })
  }
}

const outcomeOf = (told: readonly string[], isError: boolean, images: readonly ToolImage[]): ToolOutcome => ({
  output: told.join('\n'),
  isError,
  images,
})

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`
