/**
 * Arithmetic as text, worked out in doubles. There is nothing here but numbers, so no expression can run code; its
 * length bounds the work.
 */

const CONSTANTS: Readonly<Record<string, number>> = { pi: Math.PI, e: Math.E }

type NumberFunction = (...values: number[]) => number

/** Each with the least and the most values it takes. */
const FUNCTIONS: Readonly<Record<string, readonly [NumberFunction, least: number, most: number]>> = {
  sqrt: [Math.sqrt, 1, 1],
  cbrt: [Math.cbrt, 1, 1],
  abs: [Math.abs, 1, 1],
  round: [(value, digits = 0) => roundTo(value, digits), 1, 2],
  floor: [Math.floor, 1, 1],
  ceil: [Math.ceil, 1, 1],
  trunc: [Math.trunc, 1, 1],
  sign: [Math.sign, 1, 1],
  exp: [Math.exp, 1, 1],
  ln: [Math.log, 1, 1],
  log: [(value, base = 10) => (base === 10 ? Math.log10(value) : Math.log(value) / Math.log(base)), 1, 2],
  log2: [Math.log2, 1, 1],
  sin: [Math.sin, 1, 1],
  cos: [Math.cos, 1, 1],
  tan: [Math.tan, 1, 1],
  asin: [Math.asin, 1, 1],
  acos: [Math.acos, 1, 1],
  atan: [Math.atan, 1, 1],
  min: [Math.min, 1, 100],
  max: [Math.max, 1, 100],
}

const OPERATORS: Readonly<
  Record<string, { binds: number; rightFirst?: boolean; work: (left: number, right: number) => number }>
> = {
  '+': { binds: 1, work: (left, right) => left + right },
  '-': { binds: 1, work: (left, right) => left - right },
  '*': { binds: 2, work: (left, right) => left * right },
  '/': { binds: 2, work: (left, right) => left / right },
  '%': { binds: 2, work: (left, right) => left % right },
  '^': { binds: 4, rightFirst: true, work: (left, right) => left ** right },
}

/** A sign binds closer than a product and less than a power: -2^2 is -4. */
const SIGN_BINDS = 3

export const OPERATOR_NAMES = Object.keys(OPERATORS)
export const FUNCTION_NAMES = Object.keys(FUNCTIONS)

/** Deeper expressions are refused, well before the stack ends. */
const MAX_DEPTH = 200

function roundTo(value: number, digits: number): number {
  if (!Number.isInteger(digits) || Math.abs(digits) > 15)
    throw new Error(`round takes whole digits from -15 to 15, not ${digits}`)
  const factor = 10 ** digits
  return Math.round(value * factor) / factor
}

/**
 * @param expression numbers, + - * / % ^, parentheses, the functions above, pi and e.
 * @returns the result to 15 significant digits, which is what doubles can promise.
 * @throws {Error} naming what is wrong with the expression, and where.
 */
export function evaluate(expression: string): number {
  const tokens = tokenize(expression)
  let at = 0
  let depth = 0

  function binary(least: number): number {
    if (++depth > MAX_DEPTH) throw new Error(`the expression is nested deeper than ${MAX_DEPTH} levels`)
    let left = operand()
    for (;;) {
      const operator = own(OPERATORS, tokens[at]?.text ?? '')
      if (operator === undefined || operator.binds < least) break
      at += 1
      left = operator.work(left, binary(operator.rightFirst === true ? operator.binds : operator.binds + 1))
    }
    depth -= 1
    return left
  }

  function operand(): number {
    const token = take('a number')
    if (token.number !== undefined) return token.number
    if (token.text === '-') return -binary(SIGN_BINDS)
    if (token.text === '+') return binary(SIGN_BINDS)
    if (token.text === '(') return closed(binary(1))
    const name = token.text.toLowerCase()
    const constant = own(CONSTANTS, name)
    return constant ?? call(name, token)
  }

  function call(name: string, token: Token): number {
    const known = own(FUNCTIONS, name)
    if (known === undefined) throw unexpected(token, 'a number')
    const [work, least, most] = known
    expect('(')
    const values = [binary(1)]
    while (tokens[at]?.text === ',') {
      at += 1
      values.push(binary(1))
    }
    expect(')')
    if (values.length < least || values.length > most)
      throw new Error(
        `${name} takes ${least === most ? least : `${least} to ${most}`} values, not ${values.length}`,
      )
    return work(...values)
  }

  const closed = (value: number): number => {
    expect(')')
    return value
  }
  function expect(text: string): void {
    const token = take(JSON.stringify(text))
    if (token.text !== text) throw unexpected(token, JSON.stringify(text))
  }
  function take(expected: string): Token {
    const token = tokens[at]
    if (token === undefined) throw new Error(`the expression ends where ${expected} was expected`)
    at += 1
    return token
  }

  const result = binary(1)
  const rest = tokens[at]
  if (rest !== undefined) throw unexpected(rest, 'an operator')
  if (!Number.isFinite(result)) throw new Error('the result is not a finite number')
  return Number(result.toPrecision(15))
}

const own = <T>(table: Readonly<Record<string, T>>, name: string): T | undefined =>
  Object.hasOwn(table, name) ? table[name] : undefined

interface Token {
  text: string
  number?: number
  /** Its place in the expression, from 1. */
  place: number
}

const unexpected = ({ text, place }: Token, expected: string): Error =>
  new Error(`there is ${JSON.stringify(text)} at ${place}, where ${expected} was expected`)

const TOKEN = /\s*(?:((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)|(\*\*|[-+*/%^(),]))/y

function tokenize(expression: string): Token[] {
  const text = expression.trimEnd()
  const tokens: Token[] = []
  TOKEN.lastIndex = 0
  while (TOKEN.lastIndex < text.length) {
    const start = TOKEN.lastIndex
    const [whole, number, name, sign] = TOKEN.exec(text) ?? []
    if (whole === undefined)
      throw new Error(`there is ${JSON.stringify(text.slice(start, start + 10))}, which is no arithmetic`)
    const place = start + whole.length - whole.trimStart().length + 1
    if (number !== undefined) tokens.push({ text: number, number: Number(number), place })
    else tokens.push({ text: name ?? (sign === '**' ? '^' : (sign ?? '')), place })
  }
  return tokens
}
