import { z } from 'zod'
import type { Tool } from '../contract.ts'
import { defineTool } from '../define-tool.ts'

const inputSchema = z.strictObject({
  timezone: z
    .string()
    .max(64)
    .refine(isTimezone, 'expected an IANA time zone, such as Europe/Paris')
    .optional()
    .describe('An IANA time zone, such as Europe/Paris; UTC where it is not given.'),
})

/** A time zone that is unknown, and an offset that some runtimes take for one, is none. */
function isTimezone(name: string): boolean {
  if (!/^[A-Za-z]/.test(name)) return false
  try {
    new Intl.DateTimeFormat('en', { timeZone: name })
    return true
  } catch {
    return false
  }
}

/** @param now the time, in ms since 1970. */
export const createCurrentTime = (now: () => number): Tool =>
  defineTool({
    name: 'current_time',
    description: 'Gives the date and time of this moment, in UTC and in a time zone.',
    inputSchema,
    readOnly: true,
    execute: ({ timezone = 'UTC' }) => describeTime(new Date(now()), timezone),
  })

function describeTime(time: Date, timezone: string) {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone: timezone, weekday: 'long', year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit',
    second: '2-digit', hourCycle: 'h23', timeZoneName: 'longOffset',
  }) // prettier-ignore
  const part = Object.fromEntries(format.formatToParts(time).map(({ type, value }) => [type, value]))
  const offset = part['timeZoneName']?.replace('GMT', '')
  const local = `${part['year']}-${part['month']}-${part['day']}T${part['hour']}:${part['minute']}:${part['second']}`
  return {
    utc: time.toISOString(),
    timezone,
    local: `${local}${offset === undefined || offset === '' ? '+00:00' : offset}`,
    weekday: part['weekday'],
  }
}
