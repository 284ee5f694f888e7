import type { Tool, ToolContext, ToolOutcome } from './contract.ts'
import { failure, messageOf, settleOutcome, type OutcomeLimits } from './settle-outcome.ts'

/**
 * Makes one call of a tool, whatever it does: an input that does not fit, a throw, silence, and an answer that cannot be
 * kept are outcomes that the model can read.
 *
 * R1 It resolves within the tool's time, also where the tool ignores its signal. A tool that blocks the thread cannot be
 * stopped by anybody.
 * R2 It rejects in one case: `context.signal` aborted before the tool answered. Then it rejects at once with the signal's
 * reason, so that a stop is not taken for a failure.
 *
 * @param context its signal is the turn's; the tool is given one that also aborts when its time is up.
 */
export async function runTool(
  tool: Tool,
  input: unknown,
  context: ToolContext,
  limits: OutcomeLimits,
): Promise<ToolOutcome> {
  context.signal.throwIfAborted()
  const problem = checkInput(tool, input)
  if (problem !== null) return failure(`the input does not fit: ${problem}`)
  const answer = await execute(tool, input, context)
  return 'failed' in answer ? failure(answer.failed) : settleOutcome(answer.answered, limits)
}

function checkInput(tool: Tool, input: unknown): string | null {
  try {
    return tool.check(input)
  } catch (error) {
    return messageOf(error)
  }
}

type Answer = { answered: unknown } | { failed: string }

/** The tool's own answer, or that it failed or took too long. Rejects with the reason of `context.signal`. */
function execute(tool: Tool, input: unknown, context: ToolContext): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const own = new AbortController()
  const onAbort = (): void => {
    // First what is waited for: a tool may answer its own abort with anything.
    reject(context.signal.reason as Error)
    own.abort(context.signal.reason)
  }
  context.signal.addEventListener('abort', onAbort, { once: true })
  const timer = setTimeout(() => {
    const failed = `the tool did not answer within ${tool.timeoutMs} ms`
    resolve({ failed })
    own.abort(new DOMException(failed, 'TimeoutError'))
  }, tool.timeoutMs)
  void call(tool, input, { ...context, signal: own.signal }).then(resolve)
  return promise.finally(() => {
    clearTimeout(timer)
    context.signal.removeEventListener('abort', onAbort)
  })
}

/** Never rejects. */
async function call(tool: Tool, input: unknown, context: ToolContext): Promise<Answer> {
  try {
    return { answered: await tool.execute(input, context) }
  } catch (error) {
    return { failed: messageOf(error) }
  }
}
