import { TurnmillError } from '../protocol/errors.ts'
import type { AnswerPart, EndPart, StreamPart } from '../protocol/parts.ts'
import type { WireFormat } from '../protocol/routes.ts'
import type { ModelCall } from './contract.ts'
import type { FailureContext, SdkErrors } from './errors.ts'
import { brokenStream, endlessAnswer, subjectOf, toProviderError } from './errors.ts'
import { asRecord } from './outside.ts'
import { countTokens, UsageTally } from './usage-tally.ts'
import { UNKNOWN_USAGE, usageOfCall } from './usage-of-call.ts'

type Finish = Omit<Extract<EndPart, { type: 'finish' }>, 'usage'>

/** A part as the events of a wire format say it. What was used is told apart. */
export type ReadPart = AnswerPart | Finish

/** What is special about a wire format: the parts that its events stand for. */
export interface EventReader {
  /**
   * The parts of one event; a `finish` among them once the format's own ending was seen.
   *
   * @throws {TurnmillError} what the event reports or shows to be wrong.
   */
  read(event: Record<string, unknown>): Iterable<ReadPart>
  /** The parts to give at the end of the body, for a format whose ending may be followed by more. */
  end(): Iterable<ReadPart>
}

export interface StreamSource {
  call: ModelCall
  wireFormat: WireFormat
  /** What the events are to be read with; made per call. */
  createReader: (context: FailureContext) => EventReader
  /** Of the SDK that sends it. */
  errors: SdkErrors
  /** Sends the request and resolves with the provider's events. */
  open: (signal: AbortSignal) => Promise<AsyncIterable<unknown>>
}

/** Reads any wire format's events as stream parts, keeping the contract of `StreamModel`. */
export async function* readStream(source: StreamSource): AsyncGenerator<StreamPart, void> {
  const { call, wireFormat } = source
  const { connection, request, signal } = call
  const context: FailureContext = {
    wireFormat,
    model: request.model,
    provider: connection.provider,
    credential: connection.credential,
    phase: 'open',
  }
  const usage = new UsageTally(wireFormat)
  const answer: Answer = { context, reader: source.createReader(context), usage, sent: false }
  let ending: Finish | Failure | undefined
  try {
    for await (const part of readParts(source, answer))
      if (part.type === 'finish') ending = part
      else yield part
    ending ??= failure(endedEarly(signal, context))
  } catch (error) {
    ending ??= failure(signal.aborted ? stopped(context) : toProviderError(error, source.errors, context))
  }
  const used = await usageOfCall(call, usage, { sent: answer.sent, begun: context.phase === 'read' })
  if (ending.type === 'finish') yield { ...ending, usage: used ?? UNKNOWN_USAGE }
  else yield { ...ending, ...(used !== null && { usage: used }) }
}

/** An answer as it comes. */
interface Answer {
  context: FailureContext
  reader: EventReader
  usage: UsageTally
  /** Whether the provider may have been asked. */
  sent: boolean
}

interface Failure {
  type: 'error'
  error: TurnmillError
}

const failure = (error: TurnmillError): Failure => ({ type: 'error', error })

/** The parts as they come; ends without a `finish` where the stream does. */
async function* readParts({ call, open }: StreamSource, answer: Answer): AsyncGenerator<ReadPart, void> {
  if (isAborted(call.signal)) return
  const left = new AbortController()
  let finished = false
  try {
    answer.sent = true
    const events = await open(AbortSignal.any([call.signal, left.signal]))
    answer.context.phase = 'read'
    for await (const part of partsOf(events, answer, call.signal)) {
      finished = part.type === 'finish'
      yield part
      if (finished) return
    }
  } finally {
    // Whatever else ends this, a caller that lost interest included, closes the provider's socket.
    if (!finished) left.abort()
  }
}

async function* partsOf(
  events: AsyncIterable<unknown>,
  { reader, usage, context }: Answer,
  signal: AbortSignal,
): AsyncGenerator<ReadPart, void> {
  let length = 0
  for await (const event of events) {
    if (isAborted(signal)) return
    const read = asRecord(event)
    usage.read(read)
    for (const part of counted(reader.read(read), usage)) {
      length += 'text' in part ? part.text.length : 0
      if (length > MAX_ANSWER_CHARACTERS) throw endlessAnswer(MAX_ANSWER_CHARACTERS, context)
      yield part
    }
  }
  // An SDK also ends quietly when it was aborted.
  if (!isAborted(signal)) yield* counted(reader.end(), usage)
}

/** More than any model writes, and well within what a row takes. */
const MAX_ANSWER_CHARACTERS = 8_000_000

/** Counts the text of an event. */
function* counted(parts: Iterable<ReadPart>, usage: UsageTally): Generator<ReadPart, void> {
  let [tokens, finished] = [0, false]
  try {
    for (const part of parts) {
      if ('text' in part) tokens += countTokens(part.text)
      finished = part.type === 'finish'
      yield part
    }
  } finally {
    if (finished) usage.passLast(tokens)
    else usage.pass(tokens)
  }
}

/** Asked anew after each wait; the property alone would be taken for settled by the compiler. */
const isAborted = (signal: AbortSignal): boolean => signal.aborted

const endedEarly = (signal: AbortSignal, context: FailureContext): TurnmillError =>
  signal.aborted ? stopped(context) : brokenStream("ended without its wire format's own ending", context)

const stopped = (context: FailureContext): TurnmillError =>
  new TurnmillError('worker_stopped', `the call of ${subjectOf(context)} was stopped`)
