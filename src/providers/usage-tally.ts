import type { WireFormat } from '../protocol/routes.ts'
import { NO_USAGE, type Usage } from '../protocol/usage.ts'
import { asRecord } from './outside.ts'
import { highestOf, readUsage, reportedSides } from './reported-usage.ts'

/** What counts of a side that nobody reported, in tokens. */
export interface UsageBounds {
  input: number
  /** The longest answer there may be; `null` where nothing bounds it. */
  output: number | null
}

/**
 * Adds up what a call uses while its answer passes: what its provider reports, and how much has passed of it.
 *
 * I11 what was not reported is estimated, and marked so.
 */
export class UsageTally {
  readonly #wireFormat: WireFormat
  #reported: Usage | undefined
  #inputReported = false
  /** Whether the output was reported, and nothing has passed since. */
  #outputReported = false
  #eventReportsAll = false
  #passed = 0
  /** Whether the wire format's own ending was seen: nobody reads what comes behind it. */
  #ended = false

  constructor(wireFormat: WireFormat) {
    this.#wireFormat = wireFormat
  }

  /** Takes what an event of an answer, or a whole answer, reports. */
  read(event: Record<string, unknown>): void {
    if (this.#ended) return
    this.#eventReportsAll = false
    this.#ended = ENDINGS.includes(event.type)
    for (const place of PLACES[this.#wireFormat]) {
      const usage = place === null ? event.usage : asRecord(event[place]).usage
      const reported = readUsage[this.#wireFormat](usage)
      if (reported === undefined) continue
      this.#reported =
        this.#reported === undefined ? reported : highestOf[this.#wireFormat](this.#reported, reported)
      const sides = reportedSides(this.#wireFormat, usage)
      this.#inputReported ||= sides.input
      if (sides.output) this.#outputReported = this.#eventReportsAll = isLast(event)
    }
  }

  /** Counts what has passed of the answer, in tokens, with the event that was read last. */
  pass(tokens: number): void {
    if (this.#ended) return
    this.#passed += tokens
    // What was reported before it is not the count at the end.
    if (tokens > 0 && !this.#eventReportsAll) this.#outputReported = false
  }

  /** Counts what had been held back until the answer's end. */
  passLast(tokens: number): void {
    this.#passed += tokens
  }

  /** Whether nothing is left to be estimated. */
  get isReported(): boolean {
    return this.#inputReported && this.#outputReported
  }

  /** An answer that broke off is charged for what has passed of it. */
  total({ input, output }: UsageBounds): Usage {
    const reported = this.#reported ?? NO_USAGE
    const passed = Math.min(Math.ceil(this.#passed), output ?? Infinity)
    return {
      ...reported,
      inputTokens: this.#inputReported ? reported.inputTokens : input,
      outputTokens: this.#outputReported ? reported.outputTokens : Math.max(reported.outputTokens, passed),
      estimated: !this.isReported,
    }
  }
}

/** The fields of an event in which there may be a `usage`; `null` for the event itself. */
const PLACES: Readonly<Record<WireFormat, readonly (string | null)[]>> = {
  'openai-chat': [null],
  'openai-responses': [null, 'response'],
  'anthropic-messages': [null, 'message'],
}

const LAST_OF_RESPONSES = ['response.completed', 'response.incomplete', 'response.failed']

/** Chat Completions has none within its events. */
const ENDINGS: readonly unknown[] = ['message_stop', ...LAST_OF_RESPONSES]

/** Anthropic begins with the input and ends with the output, Responses may begin with anything; others report all so far. */
const isLast = ({ type }: Record<string, unknown>): boolean =>
  typeof type !== 'string' ||
  (type.startsWith('response.') ? LAST_OF_RESPONSES.includes(type) : type !== 'message_start')

/** Common for English text; of most other scripts a character is about a token. */
const ASCII_PER_TOKEN = 4

/** Roughly how many tokens a text is; not rounded, so that pieces of it can be added up. */
export function countTokens(text: string): number {
  let others = 0
  for (let index = 0; index < text.length; index++) if (text.charCodeAt(index) > 0x7f) others++
  return (text.length - others) / ASCII_PER_TOKEN + others
}
