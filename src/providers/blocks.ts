import { toStorableText } from '../protocol/messages.ts'
import type { AnswerPart } from '../protocol/parts.ts'

export type BlockKind = 'text' | 'reasoning'

interface OpenBlock {
  kind: BlockKind
  /** Null until the first text came: a block that stays empty is never announced. */
  id: string | null
  /** First half of a surrogate pair whose second half may come with the next delta. */
  held: string
}

/**
 * Turns a provider's deltas into the parts of well-formed blocks: started once, ended once, never empty, with storable
 * text. Ids count up within one model call.
 */
export class AnswerBlocks {
  readonly #open = new Map<string, OpenBlock>()
  readonly #altered = new Set<string>()
  #started = 0
  #hasText = false

  /** The id of the next block within this model call, for blocks of other kinds too. */
  nextId(): string {
    return String(this.#started++)
  }

  /** Whether there was text that is no reasoning. */
  get hasText(): boolean {
    return this.#hasText
  }

  /** Whether text of this block was replaced because Postgres cannot hold it: a signature no longer fits it. */
  isAltered(key: string): boolean {
    return this.#altered.has(key)
  }

  /** @param key what the provider calls the block; any string that is its own among the open ones. */
  *delta(key: string, kind: BlockKind, text: string): Generator<AnswerPart, void> {
    const block = this.#blockOf(key, kind)
    const [whole, held] = splitHalfPair(block.held + text)
    block.held = held
    yield* this.#emit(key, block, whole)
  }

  /** Ends a block if it is open. With provider data, one that had no text is announced all the same. */
  *end(key: string, kind: BlockKind, providerData?: Record<string, unknown>): Generator<AnswerPart, void> {
    if (!this.#open.has(key) && providerData === undefined) return
    const block = this.#blockOf(key, kind)
    yield* this.#emit(key, block, block.held)
    this.#open.delete(key)
    if (block.id === null && providerData === undefined) return
    if (block.id === null) yield this.#start(block)
    yield endPart(block, providerData)
  }

  *endAll(): Generator<AnswerPart, void> {
    for (const [key, block] of [...this.#open]) yield* this.end(key, block.kind)
  }

  #blockOf(key: string, kind: BlockKind): OpenBlock {
    const block = this.#open.get(key) ?? { kind, id: null, held: '' }
    this.#open.set(key, block)
    return block
  }

  *#emit(key: string, block: OpenBlock, raw: string): Generator<AnswerPart, void> {
    if (raw === '') return
    const text = toStorableText(raw)
    if (text !== raw) this.#altered.add(key)
    this.#hasText ||= block.kind === 'text'
    if (block.id === null) yield this.#start(block)
    yield deltaPart(block, text)
  }

  #start(block: OpenBlock): AnswerPart {
    block.id = this.nextId()
    return { type: `${block.kind}-start`, id: block.id }
  }
}

const idOf = (block: OpenBlock): string => block.id ?? ''

const deltaPart = (block: OpenBlock, text: string): AnswerPart => ({
  type: `${block.kind}-delta`,
  id: idOf(block),
  text,
})

function endPart(block: OpenBlock, providerData?: Record<string, unknown>): AnswerPart {
  if (block.kind === 'text') return { type: 'text-end', id: idOf(block) }
  return { type: 'reasoning-end', id: idOf(block), ...(providerData && { providerData }) }
}

/** Cuts a high surrogate off the end: JSON escapes let a provider split a pair over two deltas. */
export function splitHalfPair(text: string): [whole: string, half: string] {
  const last = text.charCodeAt(text.length - 1)
  return last >= 0xd800 && last <= 0xdbff ? [text.slice(0, -1), text.slice(-1)] : [text, '']
}
