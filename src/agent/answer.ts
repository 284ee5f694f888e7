import type { MessagePart } from '../protocol/messages.ts'
import type { AnswerPart } from '../protocol/parts.ts'

/** The parts of an answer, put together as they arrive. */
export interface Answer {
  add(part: AnswerPart): void
  /** As it will be committed: blocks in the order they were started, without the empty ones. */
  parts(): MessagePart[]
}

interface Block {
  kind: 'text' | 'reasoning'
  pieces: string[]
  providerData?: Record<string, unknown>
}

export function createAnswer(): Answer {
  const blocks = new Map<string, Block>()
  return {
    add: (part) => {
      if (part.type === 'text-start') blocks.set(part.id, { kind: 'text', pieces: [] })
      else if (part.type === 'reasoning-start') blocks.set(part.id, { kind: 'reasoning', pieces: [] })
      else if ('text' in part) blocks.get(part.id)?.pieces.push(part.text)
      else if (part.type === 'reasoning-end' && part.providerData !== undefined) {
        const block = blocks.get(part.id)
        if (block !== undefined) block.providerData = part.providerData
      }
    },
    parts: () => [...blocks.values()].flatMap(toMessagePart),
  }
}

function toMessagePart({ kind, pieces, providerData }: Block): MessagePart[] {
  const text = pieces.join('')
  if (kind === 'text') return text === '' ? [] : [{ type: 'text', text }]
  if (text === '' && providerData === undefined) return []
  return [{ type: 'reasoning', text, ...(providerData === undefined ? {} : { providerData }) }]
}
