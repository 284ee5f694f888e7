import { z } from 'zod'
import type { ComputerInput } from '../protocol/computer.ts'
import type { DisplaySize } from './driver.ts'
import { isKey } from './keys.ts'

/** What one call may ask for at most. */
export const LIMITS = {
  actions: 20,
  /** Points of a drag. */
  pathPoints: 100,
  textLength: 10_000,
  /** Keys pressed together. */
  keys: 5,
  /** In pixels, either way. */
  scroll: 20_000,
  waitMs: 30_000,
  urlLength: 2048,
} as const

/** What is wrong with an input, naming the field; `null` where nothing is. */
export type InputCheck = (input: unknown) => string | null

/** Checks a `ComputerInput` for a display of this size. */
export function createComputerCheck(size: DisplaySize): InputCheck {
  const schema: z.ZodType<ComputerInput> = computerInput(size)
  return (input) => problemOf(schema.safeParse(input))
}

function computerInput({ width, height }: DisplaySize) {
  const place = {
    x: z.number().min(0).lt(width, `expected less than ${width}, the width of the display`),
    y: z.number().min(0).lt(height, `expected less than ${height}, the height of the display`),
  }
  const distance = z.number().min(-LIMITS.scroll).max(LIMITS.scroll)
  const key = z.string().refine(isKey, {
    error: ({ input }) => `${JSON.stringify(input)} is no key, expected a name such as Enter, or a character`,
  })
  const action = z.discriminatedUnion('type', [
    z.strictObject({ type: z.literal('screenshot') }),
    z.strictObject({
      type: z.literal('click'),
      ...place,
      button: z.enum(['left', 'right', 'middle']),
      count: z.union([z.literal(1), z.literal(2), z.literal(3)]),
    }),
    z.strictObject({ type: z.literal('move'), ...place }),
    z.strictObject({
      type: z.literal('drag'),
      path: z.array(z.strictObject(place)).min(2).max(LIMITS.pathPoints),
    }),
    z.strictObject({ type: z.literal('type'), text: z.string().min(1).max(LIMITS.textLength) }),
    z.strictObject({ type: z.literal('key'), keys: z.array(key).min(1).max(LIMITS.keys) }),
    z.strictObject({ type: z.literal('scroll'), ...place, dx: distance, dy: distance }),
    z.strictObject({ type: z.literal('wait'), ms: z.number().min(0).max(LIMITS.waitMs) }),
  ])
  return z.strictObject({ actions: z.array(action).min(1).max(LIMITS.actions) })
}

/** What a page may be opened at: no file, no page of the browser's own, nothing that is written in the address itself. */
export const isPageAddress = (url: string): boolean =>
  URL.canParse(url) && ['http:', 'https:'].includes(new URL(url).protocol)

const PAGE_INPUT = z.strictObject({
  url: z
    .string()
    .max(LIMITS.urlLength)
    .refine(isPageAddress, 'expected an address that begins with http:// or https://'),
})

/** Checks the input of `open_page`. */
export const checkPageInput: InputCheck = (input) => problemOf(PAGE_INPUT.safeParse(input))

function problemOf(result: z.ZodSafeParseResult<unknown>): string | null {
  const issue = result.error?.issues[0]
  if (issue === undefined) return null
  const field = issue.path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`)).join('')
  return `${field.replace(/^\./, '') || 'the input'}: ${issue.message}`
}
