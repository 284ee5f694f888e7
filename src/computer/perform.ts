import type { Page } from 'playwright-core'
import type { ComputerAction } from '../protocol/computer.ts'
import { pressOf } from './keys.ts'

/** What is done to a page. */
export type PageAction = Exclude<ComputerAction, { type: 'screenshot' } | { type: 'wait' }>

/** Longer text comes as if pasted: a key at a time it would take many seconds. */
const TYPED_LENGTH = 200

/** How many moves of the mouse lead from one point of a drag to the next: a page that follows them sees more than the ends. */
const DRAG_STEPS = 5

/** Does it. Buttons and keys that were pressed are let go, also where it fails half-way. */
export function performOn(page: Page, action: PageAction): Promise<void> {
  switch (action.type) {
    case 'click':
      return page.mouse.click(action.x, action.y, { button: action.button, clickCount: action.count })
    case 'move':
      return page.mouse.move(action.x, action.y)
    case 'drag':
      return drag(page, action.path)
    case 'type':
      return typeText(page, action.text)
    case 'key':
      return pressKeys(page, action.keys)
    case 'scroll':
      return scroll(page, action)
  }
}

async function drag(page: Page, [start, ...path]: readonly { x: number; y: number }[]): Promise<void> {
  if (start === undefined) return
  await page.mouse.move(start.x, start.y)
  await page.mouse.down()
  try {
    for (const { x, y } of path) await page.mouse.move(x, y, { steps: DRAG_STEPS })
  } finally {
    await page.mouse.up()
  }
}

async function scroll(page: Page, { x, y, dx, dy }: Extract<PageAction, { type: 'scroll' }>): Promise<void> {
  await page.mouse.move(x, y)
  await page.mouse.wheel(dx, dy)
}

/** Line ends and tabs are the keys that they are on a keyboard. */
async function typeText(page: Page, text: string): Promise<void> {
  for (const piece of text.replaceAll('\r\n', '\n').split(/([\n\t])/)) {
    if (piece === '\n') await page.keyboard.press('Enter')
    else if (piece === '\t') await page.keyboard.press('Tab')
    else if (piece.length > TYPED_LENGTH) await page.keyboard.insertText(piece)
    else await page.keyboard.type(piece)
  }
}

/** What keys do in a browser rather than in a page: a page that is driven from outside has no browser around it to do so. */
const BROWSER_KEYS: Record<string, (page: Page) => Promise<unknown>> = {
  'Alt+ArrowLeft': (page) => page.goBack({ waitUntil: 'commit' }),
  'Alt+ArrowRight': (page) => page.goForward({ waitUntil: 'commit' }),
  'Control+r': (page) => page.reload({ waitUntil: 'commit' }),
  F5: (page) => page.reload({ waitUntil: 'commit' }),
}

async function pressKeys(page: Page, keys: readonly string[]): Promise<void> {
  const ofBrowser = BROWSER_KEYS[keys.join('+')]
  if (ofBrowser !== undefined) {
    await ofBrowser(page)
    return
  }
  const pressed: string[] = []
  try {
    for (const key of keys.map(pressOf)) {
      await page.keyboard.down(key)
      pressed.push(key)
    }
  } finally {
    for (const key of pressed.toReversed()) await page.keyboard.up(key)
  }
}
