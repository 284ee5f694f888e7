import type {
  BetaToolComputerUse20250124,
  BetaToolComputerUse20251124,
} from '@anthropic-ai/sdk/resources/beta/messages'
import type {
  ComputerToolset20260801,
  ToolResultBlockParam,
  ToolUseBlockParam,
} from '@anthropic-ai/sdk/resources/messages'
import type { ComputerAction } from '../protocol/computer.ts'
import type { ModelMessage, ToolCallPart } from '../protocol/messages.ts'
import type { ComputerTool } from '../protocol/tools.ts'
import { COMPUTER_TOOL } from '../protocol/tools.ts'
import { claudeVersionOf } from './anthropic-thinking.ts'
import type { Point } from './computer-actions.ts'
import {
  BadAction,
  lastPointOf,
  refuseHeldKeys,
  toComputerInput,
  toPixels,
  toText,
  toWait,
} from './computer-actions.ts'
import { splitChord, toDomKeys } from './computer-keys.ts'
import type { ModelRequest } from './contract.ts'
import { asList, asRecord, asText, isRecord, lookUp } from './outside.ts'
import { ownProviderData, toProviderData } from './provider-data.ts'
import { isToolCall } from './tool-history.ts'
import type { NativeInput } from './tool-input.ts'
import { badInput, parseToolInput } from './tool-input.ts'

/**
 * Anthropic's own computer: a set of tools since Claude 4.8, one tool behind a beta header before. Either way an answer
 * may use it several times in a row, to be done in order and up to the first that fails: we make one call of these.
 * Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/computer-use-tool
 */

const wireFormat = 'anthropic-messages'

const TOOLSET = 'computer_toolset_20260801'
type ComputerType = typeof TOOLSET | BetaToolComputerUse20251124['type'] | BetaToolComputerUse20250124['type']

const BETAS: Readonly<Record<ComputerType, string | null>> = {
  [TOOLSET]: null,
  computer_20251124: 'computer-use-2025-11-24',
  computer_20250124: 'computer-use-2025-01-24',
}

/** Models whose name says no version are taken for current ones. */
function computerTypeOf(model: string): ComputerType {
  const version = claudeVersionOf(model) ?? Infinity
  if (version >= 408) return TOOLSET
  return version >= 406 || /opus-4[-.]5/.test(model) ? 'computer_20251124' : 'computer_20250124'
}

/** What the driver has no action for. */
const UNSUPPORTED = ['zoom', 'cursor_position', 'hold_key', 'left_mouse_down', 'left_mouse_up'] as const

export type NativeComputer =
  ComputerToolset20260801 | BetaToolComputerUse20251124 | BetaToolComputerUse20250124

export function toNativeComputer({ width, height }: ComputerTool, model: string): NativeComputer {
  const type = computerTypeOf(model)
  if (type === TOOLSET)
    return { type, configs: Object.fromEntries(UNSUPPORTED.map((name) => [name, { enabled: false }])) }
  return { type, name: COMPUTER_TOOL, display_width_px: width, display_height_px: height }
}

/** The beta header that a request needs, or nothing. */
export function computerBeta({ tools, model }: ModelRequest): Record<string, string> {
  const beta = tools.some(isComputer) ? BETAS[computerTypeOf(model)] : null
  return beta === null ? {} : { 'anthropic-beta': beta }
}

const isComputer = ({ kind }: { kind: string }): boolean => kind === 'computer'

// --- Calls

/** One use of the computer, a content block of an answer; its input is JSON text. */
export interface ComputerUse {
  id: string
  /** `computer`, or the member of the set. */
  name: string
  text: string
}

/** Whether a block uses the computer, where one was offered. */
export const isComputerUse = (block: Record<string, unknown>): boolean =>
  block.type === 'tool_use' && (block.toolset_name === COMPUTER_TOOL || block.name === COMPUTER_TOOL)

/** The input of the call that these uses are, in a row, and what goes back with it. */
export function readComputerUses(uses: readonly ComputerUse[], request: ModelRequest): NativeInput {
  const parsed = uses.map(({ text }) => parseToolInput(text))
  const broken = parsed.find(({ inputError }) => inputError !== undefined)
  if (broken !== undefined) return broken
  const blocks = uses.map(({ id, name }, index) => ({ id, name, input: asRecord(parsed[index]?.input) }))
  const read = toComputerInput(blocks, () => toActions(blocks, lastPointIn(request.messages)))
  try {
    const origin = { wireFormat, model: request.model } as const
    const data = { kind: 'computer', tool: computerTypeOf(request.model), blocks }
    return { ...read, providerData: toProviderData(origin, data) }
  } catch {
    return badInput('', 'the actions are nested too deep')
  }
}

interface UsedBlock {
  id: string
  name: string
  input: Record<string, unknown>
}

/** Where the pointer was left by former calls. */
const lastPointIn = (messages: readonly ModelMessage[]): Point | undefined =>
  lastPointOf(
    messages
      .flatMap(({ parts }) => parts.filter(isToolCall))
      .filter(({ toolName }) => toolName === COMPUTER_TOOL)
      .flatMap(({ input }) => asList(asRecord(input).actions)),
  )

function toActions(blocks: readonly UsedBlock[], pointer: Point | undefined): ComputerAction[] {
  const actions: ComputerAction[] = []
  for (const { name, input } of blocks) {
    const member = name === COMPUTER_TOOL ? asText(input.action) : name
    actions.push(...toMemberActions(member, input, lastPointOf(actions) ?? pointer))
  }
  return actions
}

const CLICKS: Readonly<Record<string, Omit<Extract<ComputerAction, { type: 'click' }>, 'x' | 'y'>>> = {
  left_click: { type: 'click', button: 'left', count: 1 },
  right_click: { type: 'click', button: 'right', count: 1 },
  middle_click: { type: 'click', button: 'middle', count: 1 },
  double_click: { type: 'click', button: 'left', count: 2 },
  triple_click: { type: 'click', button: 'left', count: 3 },
}

function toMemberActions(
  member: string,
  input: Record<string, unknown>,
  pointer: Point | undefined,
): ComputerAction[] {
  const here = () => toPlace(input.coordinate, member, pointer)
  const click = lookUp(CLICKS, member)
  if (click !== undefined) {
    refuseHeldKeys(input.text, member)
    return [{ ...click, ...here() }]
  }
  switch (member) {
    case 'screenshot':
      return [{ type: 'screenshot' }]
    case 'mouse_move':
      return [{ type: 'move', ...toPlace(input.coordinate, member) }]
    case 'left_click_drag':
      refuseHeldKeys(input.text, member)
      return [{ type: 'drag', path: [toPlace(input.start_coordinate, member, pointer), toPlace(input.coordinate, member)] }] // prettier-ignore
    case 'type':
      return [{ type: 'type', text: toText(input.text, member) }]
    case 'key':
      return toKeyActions(toText(input.text, member), input.repeat)
    case 'scroll':
      refuseHeldKeys(input.text, member)
      return [{ type: 'scroll', ...here(), ...toDistance(input) }]
    case 'wait':
      return [toWait(Number(input.duration) * 1_000, member)]
  }
  throw new BadAction(member, 'is not supported')
}

/** A place that is left out is where the pointer is. */
function toPlace(value: unknown, action: string, pointer?: Point): Point {
  if ((value === undefined || value === null) && pointer !== undefined) return pointer
  const [x, y] = asList(value)
  return { x: toPixels(x, action, 'coordinate'), y: toPixels(y, action, 'coordinate') }
}

/** More repetitions than these are not done. */
const MAX_REPEATS = 100

/** Chords one after the other are parted by blanks; a blank alone is a key itself. */
function toKeyActions(text: string, repeat: unknown): ComputerAction[] {
  if (text === '') throw new BadAction('key', 'needs the field text, the names of keys')
  const chords = text.trim() === '' ? ['space'] : text.trim().split(/\s+/)
  const once = chords.map((chord): ComputerAction => ({ type: 'key', keys: toDomKeys(splitChord(chord)) }))
  const times = typeof repeat === 'number' && repeat >= 1 ? Math.min(Math.floor(repeat), MAX_REPEATS) : 1
  return Array.from({ length: times }, () => once).flat()
}

/** About what one click of a scroll wheel moves, in pixels. */
const WHEEL_PIXELS = 100

const DIRECTIONS: Readonly<Record<string, (distance: number) => { dx: number; dy: number }>> = {
  up: (distance) => ({ dx: 0, dy: -distance }),
  down: (distance) => ({ dx: 0, dy: distance }),
  left: (distance) => ({ dx: -distance, dy: 0 }),
  right: (distance) => ({ dx: distance, dy: 0 }),
}

function toDistance(input: Record<string, unknown>): { dx: number; dy: number } {
  const direction = lookUp(DIRECTIONS, asText(input.scroll_direction))
  if (direction === undefined)
    throw new BadAction('scroll', `needs a direction: ${Object.keys(DIRECTIONS).join(', ')}`)
  return direction(toPixels(input.scroll_amount, 'scroll', 'scroll_amount') * WHEEL_PIXELS)
}

// --- History

/** The blocks of the calls that go back as they came, by the call's id. */
export type NativeUses = ReadonlyMap<string, readonly UsedBlock[]>

/**
 * Only where the same tool is offered, and to the model that made the calls. The others go back as calls of an ordinary
 * tool.
 *
 * @param messages repaired, so that ids are unique.
 */
export function nativeUsesOf({ tools, model }: ModelRequest, messages: readonly ModelMessage[]): NativeUses {
  const native = new Map<string, readonly UsedBlock[]>()
  if (!tools.some(isComputer)) return native
  for (const call of messages.flatMap(({ parts }) => parts.filter(isToolCall))) {
    const data = ownProviderData(call, { wireFormat, model })
    const blocks = data?.tool === computerTypeOf(model) ? blocksOf(call, data) : []
    if (blocks.length > 0) native.set(call.toolCallId, blocks)
  }
  return native
}

/** The first has the id of the call. Where that one had to be changed, those of the others are no longer unique. */
function blocksOf({ toolCallId }: ToolCallPart, { blocks }: Record<string, unknown>): UsedBlock[] {
  const given = asList(blocks).filter(isRecord)
  const isRenamed = asText(given[0]?.id) !== toolCallId
  return given.map(({ id, name, input }, index) => {
    const numbered = index === 0 ? toolCallId : `${toolCallId}-${index}`
    const isUsable = index > 0 && !isRenamed && /^[\w-]+$/.test(asText(id))
    return { id: isUsable ? asText(id) : numbered, name: asText(name), input: asRecord(input) }
  })
}

const memberOf = (name: string) => (name === COMPUTER_TOOL ? {} : { toolset_name: COMPUTER_TOOL })

export const toUseBlocks = (blocks: readonly UsedBlock[]): ToolUseBlockParam[] =>
  blocks.map(({ id, name, input }) => ({ type: 'tool_use', id, name, input, ...memberOf(name) }))

const SEE_LAST = 'See the result of the last action of this turn.'

/** Uses in a row had one result, which stands with the last of them. */
export const toUseResults = (
  blocks: readonly UsedBlock[],
  result: ToolResultBlockParam,
): ToolResultBlockParam[] =>
  blocks.map(({ id, name }, index) => ({
    ...result,
    ...(index < blocks.length - 1 && { content: SEE_LAST }),
    tool_use_id: id,
    ...memberOf(name),
  }))
