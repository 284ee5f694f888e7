import type { CallPiece, ToolCalls } from './tool-calls.ts'

interface Slot {
  key: string
  id: string
}

const NO_INDEX = -1

/**
 * Which call a piece of a Chat Completions stream belongs to. By the format each call has an index of its own. Some
 * servers give none, or 0 to all of them: there a call begins with a name and another id, or with a name where the
 * call before is whole.
 */
export class CallSlots {
  readonly #calls: ToolCalls
  readonly #slots = new Map<number, Slot>()
  #count = 0

  constructor(calls: ToolCalls) {
    this.#calls = calls
  }

  keyOf(index: unknown, piece: CallPiece): string {
    const number = typeof index === 'number' ? index : NO_INDEX
    const slot = this.#slots.get(number)
    if (slot !== undefined && !this.#startsNew(number, slot, piece)) {
      slot.id ||= piece.id
      return slot.key
    }
    const key = String(this.#count++)
    this.#slots.set(number, { key, id: piece.id })
    return key
  }

  #startsNew(index: number, slot: Slot, { id, name, text }: CallPiece): boolean {
    if (name === '') return false
    if (index === NO_INDEX && id === '') return true
    if (id !== '' && slot.id !== '' && id !== slot.id) return true
    return text !== '' && this.#calls.isWhole(slot.key)
  }
}
