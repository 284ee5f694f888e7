import type { ReasoningPart, ToolCallPart } from '../protocol/messages.ts'
import { toStorableJson } from '../protocol/messages.ts'
import type { WireFormat } from '../protocol/routes.ts'

/** Whose opaque data it is: only the same model behind the same wire format can read it. */
export interface Origin {
  wireFormat: WireFormat
  model: string
}

/**
 * `providerData` of a block of reasoning or of a tool call, marked with where it came from.
 *
 * @param fields JSON.
 * @throws {RangeError} where the fields are nested too deep to be stored.
 */
export function toProviderData(
  { wireFormat, model }: Origin,
  fields: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const data: Record<string, unknown> = { wireFormat, model }
  for (const [name, value] of Object.entries(fields)) data[name] = toStorableJson(value)
  return data
}

/**
 * What this model once gave with a block, or null. A conversation that changed its model carries blocks of the former
 * one, which the present one would refuse.
 */
export function ownProviderData(
  { providerData: data }: Pick<ReasoningPart | ToolCallPart, 'providerData'>,
  origin: Origin,
): Record<string, unknown> | null {
  return data?.wireFormat === origin.wireFormat && data.model === origin.model ? data : null
}
