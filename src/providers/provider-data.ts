import type { ReasoningPart } from '../protocol/messages.ts'
import { toStorableText } from '../protocol/messages.ts'
import type { WireFormat } from '../protocol/routes.ts'

/** Whose opaque data it is: only the same model behind the same wire format can read it. */
interface Origin {
  wireFormat: WireFormat
  model: string
}

/** `providerData` of a reasoning block, marked with where it came from. */
export function toProviderData(
  { wireFormat, model }: Origin,
  fields: Readonly<Record<string, string>>,
): Record<string, unknown> {
  const data: Record<string, unknown> = { wireFormat, model }
  for (const [name, value] of Object.entries(fields)) data[name] = toStorableText(value)
  return data
}

/**
 * What this model once gave with a reasoning block, or null. A conversation that changed its model carries blocks of
 * the former one, which the present one would refuse.
 */
export function ownProviderData(part: ReasoningPart, origin: Origin): Record<string, unknown> | null {
  const data = part.providerData
  return data?.wireFormat === origin.wireFormat && data.model === origin.model ? data : null
}
