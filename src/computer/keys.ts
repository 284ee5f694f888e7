/** The keys of a keyboard that have a name, as in the DOM's `KeyboardEvent.key`. */
const NAMED_KEYS: ReadonlySet<string> = new Set([
  ...['Alt', 'AltGraph', 'Control', 'Meta', 'Shift', 'CapsLock', 'NumLock', 'ScrollLock'],
  ...['Enter', 'Tab', 'Backspace', 'Delete', 'Insert', 'Escape'],
  ...['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown', 'Home', 'End', 'PageUp', 'PageDown'],
  ...['ContextMenu', 'Pause', 'PrintScreen'],
  ...Array.from({ length: 12 }, (_, index) => `F${index + 1}`),
])

/** Whether there is such a key: one with a name, or a printable ASCII character. Other characters are typed as text. */
export const isKey = (key: string): boolean => NAMED_KEYS.has(key) || /^[ -~]$/.test(key)

/** Where the keys lie that have neither a letter nor a digit on them, on a US keyboard. */
const PUNCTUATION: Record<string, string> = {
  '-': 'Minus',
  '=': 'Equal',
  '[': 'BracketLeft',
  ']': 'BracketRight',
  '\\': 'Backslash',
  ';': 'Semicolon',
  "'": 'Quote',
  ',': 'Comma',
  '.': 'Period',
  '/': 'Slash',
  '`': 'Backquote',
  ' ': 'Space',
}

/** What playwright presses, as `KeyboardEvent.code` where that is known: of a code it knows what Shift makes of it. */
export function pressOf(key: string): string {
  if (/^[a-z]$/.test(key)) return `Key${key.toUpperCase()}`
  if (/^\d$/.test(key)) return `Digit${key}`
  return PUNCTUATION[key] ?? key
}
