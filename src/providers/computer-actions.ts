import type { ComputerAction } from '../protocol/computer.ts'
import type { ToolDefinition } from '../protocol/tools.ts'
import { COMPUTER_TOOL } from '../protocol/tools.ts'
import { toDomKeys } from './computer-keys.ts'
import { asList, asRecord, asText, isRecord } from './outside.ts'
import type { ReadArguments } from './tool-calls.ts'
import type { ToolInput } from './tool-input.ts'
import { badInput } from './tool-input.ts'

export interface Point {
  x: number
  y: number
}

/** An action that cannot be done as it was asked for; the message tells the model which and why. */
export class BadAction extends Error {
  constructor(action: string, why: string) {
    super(`the action ${JSON.stringify(action)} ${why}`)
  }
}

/** More actions than these in one call are refused. */
const MAX_ACTIONS = 200

/** What is done with the input of a native call: its actions, or what is wrong with one. `raw` is the input as JSON. */
export function toComputerInput(raw: unknown, read: () => ComputerAction[]): ToolInput {
  try {
    const actions = read()
    if (actions.length === 0) throw new BadAction('', 'is missing: expected at least one action')
    if (actions.length > MAX_ACTIONS) throw new BadAction('', `is one of more than ${MAX_ACTIONS}`)
    return { input: { actions } }
  } catch (error) {
    if (error instanceof BadAction) return badInput(JSON.stringify(raw ?? null), error.message)
    throw error
  }
}

/** Where the pointer is after these actions, which may be stored ones; undefined where they did not move it. */
export const lastPointOf = (actions: readonly unknown[]): Point | undefined =>
  actions.map(pointOf).findLast((point) => point !== undefined)

function pointOf(action: unknown): Point | undefined {
  const { path, ...place } = asRecord(action)
  const { x, y } = path === undefined ? place : asRecord(asList(path).at(-1))
  return typeof x === 'number' && typeof y === 'number' ? { x, y } : undefined
}

// --- Reading fields

/** In pixels. */
export function toPoint(value: unknown, action: string): Point {
  const fields = asRecord(value)
  return { x: toPixels(fields.x, action, 'x'), y: toPixels(fields.y, action, 'y') }
}

export function toPixels(value: unknown, action: string, name: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value))
    throw new BadAction(action, `needs the field ${name}, a number of pixels`)
  return Math.round(value)
}

export function toText(value: unknown, action: string, name = 'text'): string {
  if (typeof value !== 'string') throw new BadAction(action, `needs the field ${name}, a text`)
  return value
}

export function toKeys(value: unknown, action: string): string[] {
  const names = asList(value).map(asText)
  if (names.length === 0 || names.includes(''))
    throw new BadAction(action, 'needs the field keys, their names')
  return toDomKeys(names)
}

export function toPath(value: unknown, action: string): Point[] {
  const path = asList(value).map((point) => toPoint(point, action))
  if (path.length < 2) throw new BadAction(action, 'needs the field path, at least two points')
  return path
}

/** Held keys beside a click or a move are something that no driver of ours does. */
export function refuseHeldKeys(held: unknown, action: string): void {
  if (asText(held) !== '' || asList(held).length > 0)
    throw new BadAction(action, 'with keys held down is not supported')
}

// --- The form in which a computer is offered as an ordinary tool

const BUTTONS = ['left', 'right', 'middle'] as const
const COUNTS = [1, 2, 3] as const

/** Longest wait, in ms. */
const MAX_WAIT_MS = 60_000

/** @param ms a number from outside. */
export function toWait(ms: unknown, action: string): ComputerAction {
  if (typeof ms !== 'number' || !(ms >= 0)) throw new BadAction(action, 'needs a time that is not negative')
  return { type: 'wait', ms: Math.min(Math.round(ms), MAX_WAIT_MS) }
}

function toAction(value: unknown): ComputerAction {
  const fields = asRecord(value)
  const type = asText(fields.type)
  switch (type) {
    case 'screenshot':
      return { type }
    case 'click':
      return { type, ...toPoint(fields, type), button: toButton(fields.button), count: toCount(fields.count) }
    case 'move':
      return { type, ...toPoint(fields, type) }
    case 'drag':
      return { type, path: toPath(fields.path, type) }
    case 'type':
      return { type, text: toText(fields.text, type) }
    case 'key':
      return { type, keys: toKeys(fields.keys, type) }
    case 'scroll': {
      const [dx, dy] = [toPixels(fields.dx ?? 0, type, 'dx'), toPixels(fields.dy ?? 0, type, 'dy')]
      return { type, ...toPoint(fields, type), dx, dy }
    }
    case 'wait':
      return toWait(fields.ms, type)
  }
  throw new BadAction(type, 'is not known')
}

function toButton(value: unknown): (typeof BUTTONS)[number] {
  const button = BUTTONS.find((one) => one === (value ?? 'left'))
  if (button === undefined) throw new BadAction('click', `needs one of the buttons ${BUTTONS.join(', ')}`)
  return button
}

function toCount(value: unknown): (typeof COUNTS)[number] {
  const count = COUNTS.find((one) => one === (value ?? 1))
  if (count === undefined) throw new BadAction('click', `needs one of the counts ${COUNTS.join(', ')}`)
  return count
}

/** Checks the arguments of the computer where it is among the tools; those of other tools pass as they are. */
export function argumentsReaderOf(tools: readonly ToolDefinition[]): ReadArguments {
  const hasComputer = tools.some(({ kind }) => kind === 'computer')
  return (toolName, input) =>
    hasComputer && toolName === COMPUTER_TOOL
      ? toComputerInput(input, () => toActionList(input.actions).map(toAction))
      : { input }
}

/** A single action without its list is what smaller models like to write. */
function toActionList(actions: unknown): readonly unknown[] {
  if (isRecord(actions)) return [actions]
  return asList(actions)
}
