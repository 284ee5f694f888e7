import { Secret } from '../protocol/secret.ts'

/** One environment variable: the row that parsing, `docs/configuration.md` and `.env.example` are made from. */
export interface Setting<T> {
  name: string
  type: 'text' | 'url' | 'integer' | 'flag' | 'secret' | 'choice'
  /** As it would be written in the environment; `null` where there is none. */
  default: string | null
  /** A value that would do, for whoever has set none or a wrong one; `null` where what is expected names all of them, or there is none to copy. */
  example: string | null
  unit: string | null
  sentence: string
  /** @throws {Error} with what was expected. */
  parse(text: string): T
}

type Described<T> = Omit<Setting<T>, 'type' | 'parse' | 'unit' | 'default' | 'example'> & {
  default?: string
  /** Where it is not the default. */
  example?: string
  unit?: string
}

const describe = <T>(
  type: Setting<T>['type'],
  row: Described<T>,
  parse: Setting<T>['parse'],
): Setting<T> => ({
  name: row.name,
  type,
  default: row.default ?? null,
  example: row.example ?? (type === 'flag' || type === 'choice' ? null : (row.default ?? null)),
  unit: row.unit ?? null,
  sentence: row.sentence,
  parse,
})

export const text = (row: Described<string>): Setting<string> => describe('text', row, (value) => value)

/** 32 random bytes in base64. */
export const secretBytes = (row: Described<Secret>): Setting<Secret> =>
  describe('secret', row, (value) => {
    if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(value) || Buffer.from(value, 'base64').length !== 32)
      throw new Error('32 bytes in base64, such as `openssl rand -base64 32` prints')
    return new Secret(value)
  })

/** @param form where it has one: what it looks like, in words, and how that is checked. */
export const secret = (
  row: Described<Secret>,
  form?: { expected: string; fits(value: string): boolean },
): Setting<Secret> =>
  describe('secret', row, (value) => {
    if (form?.fits(value) === false) throw new Error(form.expected)
    return new Secret(value)
  })

export function url(row: Described<string>, ...protocols: string[]): Setting<string> {
  return describe('url', row, (value) => {
    if (!URL.canParse(value) || !protocols.includes(new URL(value).protocol))
      throw new Error(`a URL that begins with ${protocols.map((protocol) => `${protocol}//`).join(' or ')}`)
    return value
  })
}

export function integer(row: Described<number>, minimum: number, maximum: number): Setting<number> {
  return describe('integer', row, (value) => {
    const number = Number(value)
    if (!/^\d+$/.test(value) || number < minimum || number > maximum)
      throw new Error(
        `a whole number from ${minimum} to ${maximum}${row.unit === undefined ? '' : ` (${row.unit})`}`,
      )
    return number
  })
}

export function flag(row: Described<boolean>): Setting<boolean> {
  return describe('flag', row, (value) => {
    if (['true', '1', 'yes', 'on'].includes(value.toLowerCase())) return true
    if (['false', '0', 'no', 'off'].includes(value.toLowerCase())) return false
    throw new Error('true or false (also 1, yes, on, and 0, no, off)')
  })
}

export function choice<T extends string>(row: Described<T>, values: readonly T[]): Setting<T> {
  return describe('choice', row, (value) => {
    const found = values.find((one) => one === value)
    if (found === undefined) throw new Error(`one of ${values.join(', ')}`)
    return found
  })
}

/** Some of these, separated by commas; `all` or `none` of them. */
export function choices<T extends string>(
  row: Described<readonly T[]>,
  values: readonly T[],
): Setting<readonly T[]> {
  return describe('text', row, (value) => {
    if (value === 'all') return values
    if (value === 'none') return []
    const names = value.split(',').map((name) => name.trim())
    const found = values.filter((one) => names.includes(one))
    if (found.length !== new Set(names).size)
      throw new Error(`all, none, or some of ${values.join(', ')}, separated by commas`)
    return found
  })
}

export const milliseconds = (
  row: Omit<Described<number>, 'unit'>,
  minimum = 1,
  maximum = 86_400_000,
): Setting<number> => integer({ ...row, unit: 'ms' }, minimum, maximum)
