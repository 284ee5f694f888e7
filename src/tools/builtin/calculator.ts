import { z } from 'zod'
import type { Tool } from '../contract.ts'
import { defineTool } from '../define-tool.ts'
import { evaluate, FUNCTION_NAMES, OPERATOR_NAMES } from './arithmetic.ts'

const MAX_LENGTH = 1000

export const createCalculator = (): Tool =>
  defineTool({
    name: 'calculator',
    description: `Works out an arithmetic expression of numbers, ${OPERATOR_NAMES.join(' ')}, parentheses, pi, e and the functions ${FUNCTION_NAMES.join(', ')}. Angles are in radians; % is the remainder.`,
    inputSchema: z.strictObject({
      expression: z.string().min(1).max(MAX_LENGTH).describe('Such as (3 + 4.5) * sqrt(2) ^ 3'),
    }),
    readOnly: true,
    execute: ({ expression }) => evaluate(expression),
  })
