import { createKeyHealth } from '../../src/gateway/key-health.ts'

let time: number
const health = () => createKeyHealth(() => time)
const keyOf = (id: string) => ({ id, hint: id }) as never
const [FIRST, SECOND] = [keyOf('first'), keyOf('second')]
const refused = (retryAfter: string) => ({ status: 429, headers: new Headers({ 'retry-after': retryAfter }) })
const taken = { status: 200, headers: new Headers() }

beforeEach(() => {
  time = 1000
})

test('a key that was refused rests for as long as its provider asked for', () => {
  const keys = health()
  expect(keys.note('first', refused('60'), time)).toBe(true)
  expect(keys.choose([FIRST, SECOND])).toEqual([SECOND])
  time += 60_000
  expect(keys.choose([FIRST, SECOND])).toEqual([FIRST, SECOND])
})

test('an answer to what was sent before the key was refused does not end its rest; one to what was sent later does', () => {
  const keys = health()
  const before = time++
  keys.note('first', refused('60'), before)
  keys.note('first', taken, before)
  expect(keys.choose([FIRST, SECOND])).toEqual([SECOND])
  keys.note('first', taken, ++time)
  expect(keys.choose([FIRST, SECOND])).toEqual([FIRST, SECOND])
})

test('a shorter wait does not end a longer one', () => {
  const keys = health()
  keys.note('first', refused('60'), time)
  keys.note('first', refused('1'), time)
  time += 2000
  expect(keys.choose([FIRST, SECOND])).toEqual([SECOND])
})
