import type { MessagePart } from '../protocol/messages.ts'
import type { AnswerPart } from '../protocol/parts.ts'

/** The parts of an answer, put together as they arrive. */
export interface Answer {
  add(part: AnswerPart): void
  /** As it will be committed: blocks in the order they were started, without empty ones and calls that were cut off. */
  parts(): MessagePart[]
}

interface TextBlock {
  kind: 'text' | 'reasoning'
  pieces: string[]
  providerData?: Record<string, unknown>
}

interface CallBlock {
  kind: 'tool-call'
  toolCallId: string
  toolName: string
  /** `null` until its end: half a call is none. */
  end: Extract<AnswerPart, { type: 'tool-input-end' }> | null
}

type Block = TextBlock | CallBlock

export function createAnswer(): Answer {
  const blocks = new Map<string, Block>()
  return {
    add: (part) => {
      const block = blocks.get(part.id)
      switch (part.type) {
        case 'text-start':
        case 'reasoning-start': {
          const kind = part.type === 'text-start' ? 'text' : 'reasoning'
          blocks.set(part.id, { kind, pieces: [] })
          return
        }
        case 'tool-input-start': {
          const { toolCallId, toolName } = part
          blocks.set(part.id, { kind: 'tool-call', toolCallId, toolName, end: null })
          return
        }
        case 'text-delta':
        case 'reasoning-delta':
          if (block !== undefined && block.kind !== 'tool-call') block.pieces.push(part.text)
          return
        case 'reasoning-end':
          if (block?.kind === 'reasoning' && part.providerData !== undefined)
            block.providerData = part.providerData
          return
        case 'tool-input-end':
          if (block?.kind === 'tool-call') block.end = part
          return
        case 'text-end':
        case 'tool-input-delta':
          return
      }
    },
    parts: () => [...blocks.values()].flatMap(toMessagePart),
  }
}

const toMessagePart = (block: Block): MessagePart[] =>
  block.kind === 'tool-call' ? toToolCall(block) : toText(block)

function toText({ kind, pieces, providerData }: TextBlock): MessagePart[] {
  const text = pieces.join('')
  if (kind === 'text') return text === '' ? [] : [{ type: 'text', text }]
  if (text === '' && providerData === undefined) return []
  return [{ type: 'reasoning', text, ...(providerData === undefined ? {} : { providerData }) }]
}

function toToolCall({ toolCallId, toolName, end }: CallBlock): MessagePart[] {
  if (end === null) return []
  const { input, inputError, providerData } = end
  return [
    {
      type: 'tool-call',
      toolCallId,
      toolName,
      input,
      ...(inputError !== undefined && { inputError }),
      ...(providerData !== undefined && { providerData }),
    },
  ]
}
