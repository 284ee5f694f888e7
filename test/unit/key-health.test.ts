import { createKeyHealth } from '../../src/gateway/key-health.ts'

let time: number
const told: [string, number][] = []
const health = () =>
  createKeyHealth(
    (...refusal) => void told.push(refusal),
    () => time,
  )
const keyOf = (id: string) => ({ id, hint: id }) as never
const [FIRST, SECOND] = [keyOf('first'), keyOf('second')]
const refused = (retryAfter: string) => ({ status: 429, headers: new Headers({ 'retry-after': retryAfter }) })
const taken = { status: 200, headers: new Headers() }

beforeEach(() => {
  time = 1000
  told.length = 0
})

test('a key that was refused rests for as long as its provider asked for', () => {
  const keys = health()
  expect(keys.note('first', refused('60'), time)).toBe(true)
  expect(told).toEqual([['first', 429]])
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

test('a key rests an hour at most, whatever its provider says', () => {
  const keys = health()
  keys.note('first', refused('999999999999'), time)
  time += 3_600_000
  expect(keys.choose([FIRST, SECOND])).toEqual([FIRST, SECOND])
})

test('a key that was not accepted is the last to be tried where all rest', () => {
  const keys = health()
  keys.note('first', refused('3600'), time)
  keys.note('second', { status: 401, headers: new Headers() }, time)
  expect(keys.choose([FIRST, SECOND])).toEqual([FIRST])
})

test('a shorter wait does not end a longer one', () => {
  const keys = health()
  keys.note('first', refused('60'), time)
  keys.note('first', refused('1'), time)
  time += 2000
  expect(keys.choose([FIRST, SECOND])).toEqual([SECOND])
})
