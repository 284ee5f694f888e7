import type { BodyGuard } from '../models/index.ts'
import { asList, filterEvents, isRecord } from '../providers/index.ts'

/** Takes the chunk of usage out of a stream of chat completions whose caller has not asked for it. */
export const hideUsage = (): BodyGuard => filterEvents((event) => !isUsageAlone(event))

/** What goes wrong is told, whatever stands beside it. */
function isUsageAlone(event: string): boolean {
  const data = /^data:[ \t]?(\{.*)$/m.exec(event)?.[1]
  if (data?.includes('"usage"') !== true || /^event:[ \t]?error/m.test(event)) return false
  try {
    const chunk: unknown = JSON.parse(data)
    if (!isRecord(chunk) || (chunk.error !== undefined && chunk.error !== null)) return false
    return isRecord(chunk.usage) && asList(chunk.choices).length === 0
  } catch {
    return false
  }
}
