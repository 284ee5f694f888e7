/**
 * One thing to do with a computer, whichever provider asked for it.
 *
 * Places are pixels of the display, from its upper left corner. `keys` are pressed together, and named as in the DOM's
 * `KeyboardEvent.key`: `Enter`, `Control`, `a`. `dx` and `dy` say how far the content is scrolled, in pixels: to the
 * right and down where positive. A drag goes along its path with the left button held.
 */
export type ComputerAction =
  | { type: 'screenshot' }
  | { type: 'click'; x: number; y: number; button: 'left' | 'right' | 'middle'; count: 1 | 2 | 3 }
  | { type: 'move'; x: number; y: number }
  | { type: 'drag'; path: { x: number; y: number }[] }
  | { type: 'type'; text: string }
  | { type: 'key'; keys: string[] }
  | { type: 'scroll'; x: number; y: number; dx: number; dy: number }
  | { type: 'wait'; ms: number }

/** The input of a call of the tool `computer`: what to do, in this order. */
export interface ComputerInput {
  actions: ComputerAction[]
}
