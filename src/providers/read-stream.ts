import { TurnmillError } from '../protocol/errors.ts'
import type { EndPart, StreamPart } from '../protocol/parts.ts'
import type { Usage } from '../protocol/usage.ts'
import type { WireFormat } from '../protocol/routes.ts'
import type { ModelCall } from './contract.ts'
import type { FailureContext, SdkErrors } from './errors.ts'
import { brokenStream, toProviderError } from './errors.ts'

/** What is special about a wire format: the parts that its events stand for. */
export interface EventReader {
  /**
   * The parts of one event; a `finish` among them once the format's own ending was seen.
   *
   * @throws {TurnmillError} what the event reports or shows to be wrong.
   */
  read(event: unknown): Iterable<StreamPart>
  /** The parts to give at the end of the body, for a format whose ending may be followed by more. */
  end(): Iterable<StreamPart>
  /** What the provider has reported so far. */
  usage(): Usage | undefined
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
    credential: connection.credential,
    phase: 'open',
  }
  const reader = source.createReader(context)
  let finished = false
  try {
    for await (const part of readParts(source, reader, context)) {
      finished ||= part.type === 'finish'
      yield part
    }
    if (!finished) yield toErrorPart(endedEarly(signal, context), reader)
  } catch (error) {
    if (!finished)
      yield toErrorPart(
        signal.aborted ? stopped(context) : toProviderError(error, source.errors, context),
        reader,
      )
  }
}

/** The parts as they come; ends without a `finish` where the stream does. */
async function* readParts(
  { call, open }: StreamSource,
  reader: EventReader,
  context: FailureContext,
): AsyncGenerator<StreamPart, void> {
  if (isAborted(call.signal)) return
  const left = new AbortController()
  let finished = false
  try {
    const events = await open(AbortSignal.any([call.signal, left.signal]))
    context.phase = 'read'
    for await (const part of partsOf(events, reader, call.signal)) {
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
  reader: EventReader,
  signal: AbortSignal,
): AsyncGenerator<StreamPart, void> {
  for await (const event of events) {
    if (isAborted(signal)) return
    yield* reader.read(event)
  }
  // An SDK also ends quietly when it was aborted.
  if (!isAborted(signal)) yield* reader.end()
}

/** Asked anew after each wait; the property alone would be taken for settled by the compiler. */
const isAborted = (signal: AbortSignal): boolean => signal.aborted

const endedEarly = (signal: AbortSignal, context: FailureContext): TurnmillError =>
  signal.aborted ? stopped(context) : brokenStream("ended without its wire format's own ending", context)

const stopped = ({ wireFormat, model }: FailureContext): TurnmillError =>
  new TurnmillError('worker_stopped', `the call of ${wireFormat} model ${model} was stopped`)

function toErrorPart(error: TurnmillError, reader: EventReader): EndPart {
  const usage = reader.usage()
  return { type: 'error', error, ...(usage && { usage }) }
}
