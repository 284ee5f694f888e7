import { toStorableText } from '../protocol/messages.ts'
import type { AnswerPart, FinishReason } from '../protocol/parts.ts'
import type { AnswerBlocks } from './blocks.ts'
import { splitHalfPair } from './blocks.ts'
import type { FailureContext } from './errors.ts'
import { brokenStream, endlessCalls, overlongArguments, unofferedToolCall } from './errors.ts'
import { ObjectEnd } from './object-end.ts'
import { UNNAMED_TOOL } from './tool-history.ts'
import type { ToolInput } from './tool-input.ts'
import { badInput, countValues, parseToolInput } from './tool-input.ts'

/** The arguments of one call may be this long, in UTF-16 units. */
export const MAX_ARGUMENT_CHARACTERS = 1_000_000

/** Once the calls of an answer hold about this many values, further ones are not read. */
const MAX_ANSWER_VALUES = 50_000

/** Calls of one answer beyond these are not run: their results are to fit into one row. */
const MAX_CALLS = 128

/** And beyond these an answer is none. */
const MAX_ASKED = 1000

/** Longer ids and names are cut. */
const MAX_NAME_CHARACTERS = 256

/** What an event says of a call; what it does not say is empty. */
export interface CallPiece {
  id: string
  name: string
  /** More text of the arguments. */
  text: string
  providerData?: Record<string, unknown>
}

/** What is special about the arguments of some tools: checks and translates them once they are a JSON object. */
export type ReadArguments = (toolName: string, input: Record<string, unknown>) => ToolInput

interface OpenCall extends CallPiece {
  /** Null until it was announced, which waits for its name. */
  block: { id: string; toolName: string } | null
  /** 1, 2, … within the answer; 0 until it was announced. */
  number: number
  /** What of the text is not streamed yet: it waits for the name, or is the first half of a surrogate pair. */
  held: string
  objectEnd: ObjectEnd
  /** What an object that seemed to have ended was read as: nothing that comes behind it can mend one that is none. */
  read: ToolInput | null
}

/**
 * Turns a provider's tool calls into the parts of well-formed blocks: started once, with an id that is unique within
 * the answer and a name, and ended once, with arguments that are a JSON object or the text of what they are instead.
 */
export class ToolCalls {
  readonly #blocks: AnswerBlocks
  readonly #context: FailureContext
  readonly #readArguments: ReadArguments
  readonly #open = new Map<string, OpenCall>()
  readonly #ended = new Set<string>()
  readonly #ids = new Set<string>()
  /** The first of the tools that nobody offered. */
  #unoffered: string | null = null
  #made = 0
  /** How many values the calls hold that have ended. */
  #values = 0

  constructor(blocks: AnswerBlocks, context: FailureContext, readArguments: ReadArguments) {
    this.#blocks = blocks
    this.#context = context
    this.#readArguments = readArguments
  }

  /**
   * Takes what an event says of a call that has not ended. The first id and the first name count: some servers repeat
   * them.
   *
   * @param key what the provider calls the call; any string that is its own among all calls of the answer.
   * @throws {TurnmillError} `provider_rejected` for arguments that are too long, or calls without end.
   */
  *add(key: string, piece: CallPiece): Generator<AnswerPart, void> {
    if (this.#ended.has(key)) return
    const call = this.#open.get(key) ?? newCall()
    this.#open.set(key, call)
    call.id ||= piece.id
    call.name ||= piece.name
    if (piece.text !== '') addText(call, piece.text)
    if (piece.providerData !== undefined) call.providerData = piece.providerData
    if (call.text.length > MAX_ARGUMENT_CHARACTERS)
      throw overlongArguments(MAX_ARGUMENT_CHARACTERS, this.#context)
    // An id that is missing once the arguments come will not come any more.
    if (call.name !== '' && (call.id !== '' || call.text !== '')) yield* this.#stream(call)
  }

  /** Leaves out a call of a tool that nobody offered, such as one that the provider runs itself. @param name may be empty. */
  ignore(name: string): void {
    this.#unoffered ??= name
  }

  /**
   * The text of a call's arguments so far; undefined where no such call is open. Its length costs nothing, but to look
   * into it with each piece costs the square of it: a text that grows is put together where it is read.
   */
  textOf(key: string): string | undefined {
    return this.#open.get(key)?.text
  }

  /** Whether the arguments of an open call are a whole JSON object, to which nothing can be added. */
  isWhole(key: string): boolean {
    const call = this.#open.get(key)
    return call !== undefined && this.#isWhole(call)
  }

  /** Ends a call whose arguments are whole; any other waits for the answer's ending, which may say why they are not. */
  *settle(key: string): Generator<AnswerPart, void> {
    const call = this.#open.get(key)
    if (call !== undefined && this.#isWhole(call)) yield* this.#end(key, call, this.#inputOf(call))
  }

  /** Ends a call whose input was read elsewhere. */
  *end(key: string, input: ToolInput, providerData?: Record<string, unknown>): Generator<AnswerPart, void> {
    const call = this.#open.get(key)
    if (call === undefined) return
    if (providerData !== undefined) call.providerData = providerData
    yield* this.#end(key, call, input)
  }

  /** @param reason why the answer ended. */
  *endAll(reason: FinishReason): Generator<AnswerPart, void> {
    for (const [key, call] of [...this.#open]) {
      yield* this.#end(key, call, cutOffInput(call.text, reason) ?? this.#inputOf(call))
    }
  }

  /**
   * Why the answer ended, once all its calls have. Compatible servers say `stop` of an answer with calls; an answer
   * that ended for a call but has none has lost it on the way, and is to be asked for again. One that is nothing but
   * calls that were ignored would be the same the next time.
   *
   * @throws {TurnmillError} `provider_stream_broken`, `provider_rejected`
   */
  reasonOf(reason: FinishReason): FinishReason {
    const isLacking = reason === 'tool_calls' || (reason === 'stop' && !this.#blocks.hasText)
    if (this.#unoffered !== null && this.#ids.size === 0 && isLacking)
      throw unofferedToolCall(this.#unoffered, this.#context)
    if (reason === 'tool_calls' && this.#ids.size === 0)
      throw brokenStream('said that it called a tool, but no call came', this.#context)
    return reason === 'stop' && this.#ids.size > 0 ? 'tool_calls' : reason
  }

  #inputOf(call: OpenCall): ToolInput {
    const parsed = (call.objectEnd.reached ? call.read : null) ?? this.#parse(call.text)
    if (parsed.inputError !== undefined) return parsed
    this.#values += countValues(call.text)
    return this.#readArguments(call.name, parsed.input as Record<string, unknown>)
  }

  /** Parsed only where an end was seen, and once. */
  #isWhole(call: OpenCall): boolean {
    if (!call.objectEnd.reached) return false
    call.read ??= this.#parse(call.text)
    return call.read.inputError === undefined
  }

  #parse(text: string): ToolInput {
    if (this.#values <= MAX_ANSWER_VALUES) return parseToolInput(text)
    return badInput(text, `the calls before it hold more than ${MAX_ANSWER_VALUES} values`)
  }

  *#end(key: string, call: OpenCall, { input, inputError }: ToolInput): Generator<AnswerPart, void> {
    this.#open.delete(key)
    this.#ended.add(key)
    yield* this.#stream(call)
    yield* this.#emit(call, call.held)
    const problem = call.number > MAX_CALLS ? TOO_MANY_CALLS : inputError
    yield {
      type: 'tool-input-end',
      id: this.#blockOf(call).id,
      input,
      ...(problem !== undefined && { inputError: problem }),
      ...(call.providerData !== undefined && { providerData: call.providerData }),
    }
  }

  *#stream(call: OpenCall): Generator<AnswerPart, void> {
    if (call.block === null) {
      const { id, toolName } = this.#blockOf(call)
      call.number = this.#ids.size + 1
      if (call.number > MAX_ASKED) throw endlessCalls(MAX_ASKED, this.#context)
      yield { type: 'tool-input-start', id, toolCallId: this.#uniqueId(call.id), toolName }
    }
    const [whole, held] = splitHalfPair(call.held)
    call.held = held
    yield* this.#emit(call, whole)
  }

  *#emit(call: OpenCall, raw: string): Generator<AnswerPart, void> {
    if (raw === '') return
    const text = toStorableText(raw)
    yield { type: 'tool-input-delta', id: this.#blockOf(call).id, text }
  }

  #blockOf(call: OpenCall): { id: string; toolName: string } {
    call.block ??= { id: this.#blocks.nextId(), toolName: toStorableName(call.name) || UNNAMED_TOOL }
    return call.block
  }

  #uniqueId(given: string): string {
    let id = toStorableName(given)
    while (id === '' || this.#ids.has(id)) id = `call_${++this.#made}`
    this.#ids.add(id)
    return id
  }
}

const TOO_MANY_CALLS = `only the first ${MAX_CALLS} calls of an answer are run; ask again, for fewer at a time`

const newCall = (): OpenCall => ({
  id: '',
  name: '',
  text: '',
  block: null,
  number: 0,
  held: '',
  objectEnd: new ObjectEnd(),
  read: null,
})

function addText(call: OpenCall, text: string): void {
  call.text += text
  call.held += text
  call.objectEnd.read(text)
}

const toStorableName = (text: string): string => toStorableText(text.slice(0, MAX_NAME_CHARACTERS))

/** What is left of arguments that the end of the answer cut off; null where they are whole, or nothing was cut off. */
export function cutOffInput(text: string, reason: FinishReason): ToolInput | null {
  if (reason === 'stop' || reason === 'tool_calls' || isWholeText(text)) return null
  return badInput(text, `the arguments are not complete: the answer was cut off (${reason})`)
}

function isWholeText(text: string): boolean {
  const end = new ObjectEnd()
  end.read(text)
  return end.reached
}
