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
