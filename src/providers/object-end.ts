/**
 * Tells where a JSON object that comes in pieces ends, looking at each character once: to parse all that there is with
 * every piece would cost the square of its length. What is no JSON may seem to have ended, too.
 */
export class ObjectEnd {
  #depth = 0
  #place: 'before' | 'inside' | 'behind' | 'elsewhere' = 'before'
  #inString = false
  #escaped = false

  /** Whether the object has ended, and nothing but white space has come since. */
  get reached(): boolean {
    return this.#place === 'behind'
  }

  read(text: string): void {
    for (let index = 0; index < text.length && this.#place !== 'elsewhere'; index++)
      this.#readCharacter(text.charAt(index))
  }

  #readCharacter(character: string): void {
    if (this.#inString) this.#readInString(character)
    else if (this.#place === 'inside') this.#readInside(character)
    else if (!WHITE_SPACE.includes(character)) this.#begin(character)
  }

  #readInString(character: string): void {
    if (this.#escaped) this.#escaped = false
    else if (character === '\\') this.#escaped = true
    else if (character === '"') this.#inString = false
  }

  #readInside(character: string): void {
    if (character === '"') this.#inString = true
    else if (character === '{' || character === '[') this.#depth++
    else if (character === '}' || character === ']') this.#depth--
    if (this.#depth === 0) this.#place = 'behind'
  }

  /** Only an object can begin, and only one. */
  #begin(character: string): void {
    const isObject = this.#place === 'before' && character === '{'
    this.#place = isObject ? 'inside' : 'elsewhere'
    this.#depth = 1
  }
}

/** What may stand around a JSON text. */
const WHITE_SPACE = ' \t\n\r'
