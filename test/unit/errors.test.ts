import { globSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describeProblem } from '../../src/api/problems.ts'
import { ERRORS, isErrorCode, TurnmillError } from '../../src/protocol/errors.ts'

const ROOT = path.resolve(import.meta.dirname, '../..')
const codes = Object.keys(ERRORS)

const source = globSync('{src,workers}/**/*.ts', { cwd: ROOT, exclude: ['src/db/generated/**'] })
  .map((file) => readFileSync(path.join(ROOT, file), 'utf8'))
  .join('\n')

describe('the table of errors', () => {
  // In the table itself a code is a bare key, so that quotes mean a use.
  test.each(codes)('%s is used', (code) => {
    expect(source).toContain(`'${code}'`)
  })

  test('holds every code that an error is made with', () => {
    const made = [...source.matchAll(/new TurnmillError\(\s*'(\w+)'/g)].map(([, code]) => code)
    expect(made.length).toBeGreaterThan(codes.length / 2)
    expect(made.filter((code) => !isErrorCode(code))).toEqual([])
  })

  test('is what docs/errors.md lists', () => {
    const page = readFileSync(path.join(ROOT, 'docs/errors.md'), 'utf8')
    const listed = [...page.matchAll(/^\| `(\w+)` \| (\d+) \| (\w+) \|/gm)].map(
      ([, code, status, recovery]) => ({
        code,
        status: Number(status),
        recovery,
      }),
    )
    expect(listed).toEqual(
      Object.entries(ERRORS).map(([code, { status, recovery }]) => ({ code, status, recovery })),
    )
  })
})

test('a problem has the extensions of its error, and its own members all the same', () => {
  const extensions = { budget: { id: 'b' }, code: 'forged' }
  const error = new TurnmillError('budget_busy', 'no', { extensions })
  expect(JSON.parse(describeProblem(error, 'r'))).toMatchObject({
    code: 'budget_busy',
    status: 429,
    detail: 'no',
    requestId: 'r',
    budget: { id: 'b' },
  })
})
