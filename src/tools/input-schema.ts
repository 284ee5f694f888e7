import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import { z } from 'zod'
import { toStorableJson } from '../protocol/messages.ts'

export type JsonSchema = Record<string, unknown>

/** What a tool takes: how models are told of it, and how it is held to it. */
export interface InputSchema {
  json: JsonSchema
  /** What is wrong with an input, naming the field; `null` where nothing is. */
  check(input: unknown): string | null
  /** An input that `check` has passed, as the tool is given it: with a zod schema, its output. */
  parse(input: unknown): unknown
}

/** Formats are told to models and not held against them: each library has its own mind of them. */
const AJV_OPTIONS = { strict: false, validateFormats: false, logger: false } as const

/**
 * Reads a schema of zod 4, or a JSON Schema (draft 2020-12).
 *
 * @throws {TypeError} where models could not be told of it.
 */
export function readInputSchema(schema: unknown): InputSchema {
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema))
    throw new TypeError('inputSchema is no schema, expected one of zod 4 or a JSON Schema')
  if ('_zod' in schema) return readZodSchema(schema as z.core.$ZodType)
  if ('_def' in schema) throw new TypeError('inputSchema is of zod 3, expected zod 4 or a JSON Schema')
  return readJsonSchema(schema as JsonSchema)
}

function readZodSchema(schema: z.core.$ZodType): InputSchema {
  return {
    json: demandUsable(describeZod(schema)),
    check: (input) => {
      const { error } = z.core.safeParse(schema, input)
      return error === undefined ? null : error.issues.map(describeIssue).join('; ')
    },
    parse: (input) => z.core.parse(schema, input),
  }
}

function describeZod(schema: z.core.$ZodType): JsonSchema {
  try {
    return z.toJSONSchema(schema, { io: 'input' })
  } catch (error) {
    throw new TypeError(`inputSchema has no form in JSON Schema: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

const describeIssue = ({ path, message }: z.core.$ZodIssue): string =>
  path.length === 0 ? message : `${path.join('.')}: ${message}`

function readJsonSchema(schema: JsonSchema): InputSchema {
  const json = demandUsable(schema)
  const ajv = new Ajv2020(AJV_OPTIONS)
  const validate = compile(ajv, json)
  return {
    json,
    check: (input) => (validate(input) ? null : ajv.errorsText(validate.errors, { dataVar: 'input' })),
    parse: (input) => input,
  }
}

function compile(ajv: Ajv2020, schema: JsonSchema): ValidateFunction {
  try {
    return ajv.compile(schema)
  } catch (error) {
    throw new TypeError(`inputSchema is no JSON Schema: ${(error as Error).message}`, { cause: error })
  }
}

function demandUsable(schema: JsonSchema): JsonSchema {
  const usable = toToolSchema(schema)
  if (typeof usable === 'string') throw new TypeError(`inputSchema ${usable}`)
  return usable
}

const metaSchema = new Ajv2020(AJV_OPTIONS)

/** What providers refuse at the root of a tool's schema; one refused tool is a refused request. */
const NOT_AT_THE_ROOT = ['anyOf', 'oneOf', 'allOf', 'not', 'enum']

/** What providers take as the name of a field. */
const FIELD_NAME = /^[a-zA-Z0-9_.-]{1,64}$/

/**
 * A schema as every provider takes it from us, or what is wrong with it. Nothing in it is run or fetched, so it may come
 * from anybody.
 */
export function toToolSchema(schema: JsonSchema): JsonSchema | string {
  if (schema['type'] !== 'object') return `is of type ${JSON.stringify(schema['type'])}, expected "object"`
  const combined = NOT_AT_THE_ROOT.find((keyword) => keyword in schema)
  if (combined !== undefined) return `has "${combined}" at its root, which providers do not take`
  const odd = Object.keys(propertiesOf(schema)).find((name) => !FIELD_NAME.test(name))
  if (odd !== undefined) return `has a field ${JSON.stringify(odd.slice(0, 100))}, expected ${FIELD_NAME}`
  return checkedCopy(schema)
}

const propertiesOf = ({ properties }: JsonSchema): object =>
  typeof properties === 'object' && properties !== null ? properties : {}

function checkedCopy(schema: JsonSchema): JsonSchema | string {
  try {
    // The draft is known; naming another one would make it another language.
    const { $schema: _, ...copy } = toStorableJson(JSON.parse(JSON.stringify(schema))) as JsonSchema
    if (metaSchema.validateSchema(copy) !== true)
      return `is none: ${metaSchema.errorsText(metaSchema.errors)}`
    const lost = findLostReference(copy, copy)
    if (lost !== null) return `refers to ${JSON.stringify(lost.slice(0, 200))}, which is not in it`
    return { properties: {}, ...copy }
  } catch (error) {
    return `cannot be told to a model: ${(error as Error).message}`
  }
}

/** The first `$ref` that leads nowhere within the schema. */
function findLostReference(part: unknown, root: JsonSchema): string | null {
  if (typeof part !== 'object' || part === null) return null
  for (const [name, value] of Object.entries(part)) {
    const lost =
      name === '$ref' && typeof value === 'string'
        ? isWithin(value, root)
          ? null
          : value
        : findLostReference(value, root)
    if (lost !== null) return lost
  }
  return null
}

/** Whether a reference is a JSON pointer to something in the schema (RFC 6901, as a URI fragment). */
function isWithin(reference: string, root: JsonSchema): boolean {
  if (!/^#(\/|$)/.test(reference)) return false
  let at: unknown = root
  for (const step of decodeURIComponent(reference).split('/').slice(1)) {
    const name = step.replaceAll('~1', '/').replaceAll('~0', '~')
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, name)) return false
    at = (at as Record<string, unknown>)[name]
  }
  return true
}
