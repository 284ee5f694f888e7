import { inspect } from 'node:util'

/** A value that prints as `<redacted>` as string, JSON and inspection. Only `reveal()` gives it away. */
export class Secret {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
  }

  reveal(): string {
    return this.#value
  }

  toString(): string {
    return '<redacted>'
  }

  toJSON(): string {
    return '<redacted>'
  }

  [inspect.custom](): string {
    return '<redacted>'
  }
}

/** What a person may see of a secret, enough to tell two apart: `sk-…9f3c`, or `…` for a short one. */
export function maskSecret(value: string): string {
  if (value.length < 12) return '…'
  return `${value.slice(0, 3)}…${value.slice(-4)}`
}
