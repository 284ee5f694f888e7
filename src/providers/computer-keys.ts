import { lookUp } from './outside.ts'

/** What providers call the keys that have no character, beside their names in the DOM. Compared without case. */
const NAMES: Readonly<Record<string, string>> = {
  alt: 'Alt',
  alt_l: 'Alt',
  alt_r: 'Alt',
  option: 'Alt',
  control: 'Control',
  control_l: 'Control',
  control_r: 'Control',
  ctrl: 'Control',
  shift: 'Shift',
  shift_l: 'Shift',
  shift_r: 'Shift',
  meta: 'Meta',
  cmd: 'Meta',
  command: 'Meta',
  super: 'Meta',
  super_l: 'Meta',
  super_r: 'Meta',
  win: 'Meta',
  windows: 'Meta',
  enter: 'Enter',
  return: 'Enter',
  kp_enter: 'Enter',
  escape: 'Escape',
  esc: 'Escape',
  tab: 'Tab',
  space: ' ',
  spacebar: ' ',
  backspace: 'Backspace',
  delete: 'Delete',
  del: 'Delete',
  insert: 'Insert',
  home: 'Home',
  end: 'End',
  pageup: 'PageUp',
  page_up: 'PageUp',
  prior: 'PageUp',
  pagedown: 'PageDown',
  page_down: 'PageDown',
  next: 'PageDown',
  up: 'ArrowUp',
  arrowup: 'ArrowUp',
  down: 'ArrowDown',
  arrowdown: 'ArrowDown',
  left: 'ArrowLeft',
  arrowleft: 'ArrowLeft',
  right: 'ArrowRight',
  arrowright: 'ArrowRight',
  capslock: 'CapsLock',
  caps_lock: 'CapsLock',
  plus: '+',
  minus: '-',
  equal: '=',
  comma: ',',
  period: '.',
  slash: '/',
  backslash: '\\',
  semicolon: ';',
  apostrophe: "'",
  grave: '`',
}

const MODIFIERS = ['Alt', 'Control', 'Meta']

/**
 * Keys pressed together, named as in the DOM's `KeyboardEvent.key`. Names that are known nowhere stay as they are.
 *
 * @param names as a provider gave them: `CTRL`, `Return`, `Page_Up`, `a`.
 * Source: https://developer.mozilla.org/docs/Web/API/UI_Events/Keyboard_event_key_values
 */
export function toDomKeys(names: readonly string[]): string[] {
  const keys = names.map(toDomKey)
  // In a shortcut a capital letter stands for the key alone, not for Shift as well.
  const isShortcut = keys.some((key) => MODIFIERS.includes(key)) && !keys.includes('Shift')
  return isShortcut ? keys.map((key) => (/^[A-Z]$/.test(key) ? key.toLowerCase() : key)) : keys
}

const toDomKey = (name: string): string =>
  /^f\d{1,2}$/i.test(name) ? name.toUpperCase() : (lookUp(NAMES, name.toLowerCase()) ?? name)

/** Splits `ctrl+shift+t`; a plus at the end is a key itself. */
export const splitChord = (chord: string): string[] =>
  chord === '+' ? ['+'] : chord.split(/\+(?!$)/).map((key) => (key === '' ? '+' : key))
