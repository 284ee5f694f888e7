import type {
  ComputerTool as NativeTool,
  ComputerUsePreviewTool,
  ResponseComputerToolCall,
  ResponseInputItem,
} from 'openai/resources/responses/responses'
import type { ComputerAction } from '../protocol/computer.ts'
import type { ModelMessage, ToolCallPart, ToolResultPart } from '../protocol/messages.ts'
import type { ComputerTool } from '../protocol/tools.ts'
import {
  BadAction,
  refuseHeldKeys,
  toComputerInput,
  toKeys,
  toPath,
  toPixels,
  toPoint,
  toText,
} from './computer-actions.ts'
import type { ModelRequest } from './contract.ts'
import { isShown, toDataUrl } from './images.ts'
import { asList, asRecord, asText, isRecord, lookUp } from './outside.ts'
import { ownProviderData, toProviderData } from './provider-data.ts'
import { isToolCall, isToolResult } from './tool-history.ts'
import type { NativeInput } from './tool-input.ts'
import { badInput } from './tool-input.ts'

/**
 * OpenAI's own computer tool, of the Responses endpoint.
 * Source: https://developers.openai.com/api/docs/guides/tools-computer-use
 */

const wireFormat = 'openai-responses'

/** What a model takes as computer; null where only an ordinary tool will do. */
export function nativeComputerOf(model: string): 'computer' | 'computer_use_preview' | null {
  if (/(^|\/)computer-use-preview/.test(model)) return 'computer_use_preview'
  return LACKS_COMPUTER.test(model) ? null : 'computer'
}

/** OpenAI's models before GPT-5.4. Of others it is not known, and the current tool is tried. */
const LACKS_COMPUTER = /(^|\/)(o\d|chatgpt-|codex-|gpt-[34]|gpt-5(\.[0-3])?(?![.\d]))/

export const offersNativeComputer = ({ tools, model }: Pick<ModelRequest, 'tools' | 'model'>): boolean =>
  nativeComputerOf(model) !== null && tools.some(({ kind }) => kind === 'computer')

export function toNativeTool(
  { width, height }: ComputerTool,
  type: 'computer' | 'computer_use_preview',
): NativeTool | ComputerUsePreviewTool {
  if (type === 'computer') return { type }
  return { type, display_width: width, display_height: height, environment: 'browser' }
}

// --- Calls

/** How long a wait lasts for which no time is given, in ms: what OpenAI's own examples wait. */
const WAIT_MS = 2_000

/** The input of a `computer_call` item, and what goes back with it. */
export function readComputerCall(item: Record<string, unknown>, model: string): NativeInput {
  const { actions, action, id, pending_safety_checks: pendingSafetyChecks = [] } = item
  const asked = isRecord(action) ? [action] : asList(actions)
  const read = toComputerInput(asked, () => asked.map(toAction))
  if (read.inputError !== undefined) return read
  try {
    const fields = isRecord(action) ? { action } : { actions: asked }
    const data = { kind: 'computer', itemId: asText(id), pendingSafetyChecks, ...fields }
    return { ...read, providerData: toProviderData({ wireFormat, model }, data) }
  } catch {
    return badInput('', 'the actions are nested too deep')
  }
}

const BUTTONS: Readonly<Record<string, 'left' | 'right' | 'middle'>> = {
  left: 'left',
  right: 'right',
  wheel: 'middle',
  middle: 'middle',
}

function toAction(value: unknown): ComputerAction {
  const fields = asRecord(value)
  const type = asText(fields.type)
  refuseHeldKeys(type === 'keypress' ? [] : fields.keys, type)
  switch (type) {
    case 'screenshot':
      return { type }
    case 'click':
      return { type, ...toPoint(fields, type), button: toButton(fields.button), count: 1 }
    case 'double_click':
      return { type: 'click', ...toPoint(fields, type), button: 'left', count: 2 }
    case 'move':
      return { type, ...toPoint(fields, type) }
    case 'drag':
      return { type, path: toPath(fields.path, type) }
    case 'type':
      return { type, text: toText(fields.text, type) }
    case 'keypress':
      return { type: 'key', keys: toKeys(fields.keys, type) }
    case 'scroll': {
      const dx = toPixels(fields.scroll_x ?? 0, type, 'scroll_x')
      const dy = toPixels(fields.scroll_y ?? 0, type, 'scroll_y')
      return { type, ...toPoint(fields, type), dx, dy }
    }
    case 'wait':
      return { type, ms: WAIT_MS }
  }
  throw new BadAction(type, 'is not known')
}

function toButton(value: unknown): 'left' | 'right' | 'middle' {
  const button = lookUp(BUTTONS, asText(value ?? 'left'))
  if (button === undefined)
    throw new BadAction('click', `with the button ${JSON.stringify(value)} is not supported`)
  return button
}

// --- History

/** A call of the history that can go back as it came. */
interface NativeCall {
  data: Record<string, unknown>
  screenshot: string
}

export type NativeCalls = ReadonlyMap<string, NativeCall>

/**
 * Which calls go back in OpenAI's own form, by their id: only where the tool is offered, to the model that made them,
 * and with a screenshot, which is all that this form can answer. The others go back as calls of an ordinary tool.
 *
 * @param messages repaired, so that ids are unique.
 */
export function nativeCallsOf(
  { tools, model }: ModelRequest,
  messages: readonly ModelMessage[],
): NativeCalls {
  const native = new Map<string, NativeCall>()
  if (!offersNativeComputer({ tools, model })) return native
  const parts = messages.flatMap((message) => message.parts)
  const results = new Map(parts.filter(isToolResult).map((result) => [result.toolCallId, result]))
  for (const call of parts.filter(isToolCall)) {
    const data = ownProviderData(call, { wireFormat, model })
    const screenshot = screenshotOf(results.get(call.toolCallId))
    if (data?.kind === 'computer' && asText(data.itemId) !== '' && screenshot !== null)
      native.set(call.toolCallId, { data, screenshot })
  }
  return native
}

function screenshotOf(result: ToolResultPart | undefined): string | null {
  if (result === undefined || result.isError) return null
  const image = (result.images ?? []).findLast(isShown)
  return image === undefined ? null : toDataUrl(image)
}

export function toComputerCall({ toolCallId }: ToolCallPart, { data }: NativeCall): ResponseInputItem {
  const { action, actions } = data as Pick<ResponseComputerToolCall, 'action' | 'actions'>
  return {
    type: 'computer_call',
    id: asText(data.itemId),
    call_id: toolCallId,
    status: 'completed',
    pending_safety_checks: safetyChecksOf(data),
    ...(action !== undefined && { action }),
    ...(actions !== undefined && { actions }),
  }
}

/** Whoever let the call run has seen the checks: they stand in its provider data. */
export const toComputerOutput = (
  { toolCallId }: ToolResultPart,
  { data, screenshot }: NativeCall,
): ResponseInputItem => ({
  type: 'computer_call_output',
  call_id: toolCallId,
  output: { type: 'computer_screenshot', image_url: screenshot },
  acknowledged_safety_checks: safetyChecksOf(data),
})

const safetyChecksOf = (data: Record<string, unknown>): ResponseComputerToolCall.PendingSafetyCheck[] =>
  asList(data.pendingSafetyChecks)
    .map(asRecord)
    .map(({ id, code, message }) => ({
      id: asText(id),
      ...(typeof code === 'string' && { code }),
      ...(typeof message === 'string' && { message }),
    }))
