import type { ComputerTool, FunctionTool } from '../protocol/tools.ts'

const pixels = { type: 'integer', description: 'In pixels.' }
const point = { x: pixels, y: pixels }

const action = (type: string, fields: Record<string, unknown> = {}, optional: readonly string[] = []) => ({
  type: 'object',
  properties: { type: { const: type }, ...fields },
  required: ['type', ...Object.keys(fields).filter((name) => !optional.includes(name))],
})

/** `ComputerAction` as a schema. */
const ACTIONS = [
  action('screenshot'),
  action('click', { ...point, button: { enum: ['left', 'right', 'middle'] }, count: { enum: [1, 2, 3] } }, [
    'button',
    'count',
  ]),
  action('move', point),
  action('drag', {
    path: { type: 'array', items: { type: 'object', properties: point, required: ['x', 'y'] } },
  }),
  action('type', { text: { type: 'string' } }),
  action('key', {
    keys: {
      type: 'array',
      items: { type: 'string' },
      description: 'Pressed together, named as in KeyboardEvent.key: ["Control", "a"].',
    },
  }),
  action('scroll', { ...point, dx: pixels, dy: { ...pixels, description: 'In pixels; down is positive.' } }),
  action('wait', { ms: { type: 'integer', description: 'In milliseconds.' } }),
]

/** The computer as an ordinary tool, for models that have none of their own. */
export const toFunctionTool = ({ name, width, height }: ComputerTool): FunctionTool => ({
  kind: 'function',
  name,
  description:
    `Uses a computer with a display of ${width} by ${height} pixels, whose upper left corner is x 0, y 0. ` +
    'Does the actions in their order and answers with a screenshot. Take a screenshot first.',
  inputSchema: {
    type: 'object',
    properties: { actions: { type: 'array', items: { anyOf: ACTIONS } } },
    required: ['actions'],
  },
})
