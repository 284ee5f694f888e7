import type { AnswerPart } from '../../src/protocol/parts.ts'
import { createPartWriter, type LoggedPart } from '../../src/streams/index.ts'

const ATTEMPT = { chatId: 'chat-1', snapshotVersion: 5, turn: 2, step: 1, epoch: 3, attempt: 1 }

const delta = (text: string, id = '0'): AnswerPart => ({ type: 'text-delta', id, text })

/** A log whose appends the test completes by hand. */
function createLog() {
  const appended: LoggedPart[][] = []
  const waiting: PromiseWithResolvers<void>[] = []
  const append = (_chatId: string, parts: readonly LoggedPart[]): Promise<void> => {
    appended.push([...parts])
    const settled = Promise.withResolvers<void>()
    waiting.push(settled)
    return settled.promise
  }
  return {
    appended,
    append,
    complete: () => waiting.shift()?.resolve(),
    fail: () => waiting.shift()?.reject(new Error('away')),
  }
}

const open = (log: ReturnType<typeof createLog>, errors: unknown[] = []) =>
  createPartWriter(ATTEMPT, { log, flushMs: 5, flushBytes: 50, onError: (error) => errors.push(error) })

const textOf = (parts: LoggedPart[]): string =>
  parts.map(({ part }) => ('text' in part ? part.text : '')).join('')

/** Lets timers and completed appends run until the log holds this many appends. */
async function appends(log: ReturnType<typeof createLog>, count: number): Promise<void> {
  while (log.appended.length < count) await new Promise((resolve) => setTimeout(resolve, 1))
}

describe('the part writer', () => {
  test('numbers parts from 1 and stamps where they belong', async () => {
    const log = createLog()
    const writer = open(log)
    writer.write({ type: 'text-start', id: '0' })
    writer.write(delta('a'))
    await appends(log, 1)
    expect(log.appended[0]).toEqual([
      {
        turn: 2,
        step: 1,
        epoch: 3,
        attempt: 1,
        snapshotVersion: 5,
        seq: 1,
        part: { type: 'text-start', id: '0' },
      },
      { turn: 2, step: 1, epoch: 3, attempt: 1, snapshotVersion: 5, seq: 2, part: delta('a') },
    ])
  })

  test('joins neighbouring deltas of a block and keeps blocks apart', async () => {
    const log = createLog()
    const writer = open(log)
    for (const part of [delta('a'), delta('b'), delta('x', '1'), delta('c')]) writer.write(part)
    await appends(log, 1)
    expect(log.appended[0]?.map(({ part }) => part)).toEqual([delta('ab'), delta('x', '1'), delta('c')])
  })

  test('writes one append at a time, and what came meanwhile goes with the next', async () => {
    const log = createLog()
    const writer = open(log)
    writer.write(delta('a'))
    await appends(log, 1)
    for (const text of ['b', 'c', 'd']) writer.write(delta(text))
    const flushed = writer.flush()
    expect(log.appended).toHaveLength(1)
    log.complete()
    await appends(log, 2)
    log.complete()
    await flushed
    expect(log.appended.map(textOf)).toEqual(['a', 'bcd'])
    expect(log.appended[1]?.map(({ seq }) => seq)).toEqual([2])
  })

  test('does not change a part that the caller still holds', async () => {
    const log = createLog()
    const writer = open(log)
    const mine = delta('a')
    writer.write(mine)
    writer.write(delta('b'))
    await appends(log, 1)
    expect(mine).toEqual(delta('a'))
  })

  test('goes on after an append that failed, and says so', async () => {
    const log = createLog()
    const errors: unknown[] = []
    const writer = open(log, errors)
    writer.write(delta('a'))
    await appends(log, 1)
    log.fail()
    writer.write(delta('b'))
    await appends(log, 2)
    log.complete()
    await writer.flush()
    expect(errors).toHaveLength(1)
    expect(log.appended[1]?.map(({ seq }) => seq)).toEqual([2])
  })

  test('stops at a megabyte, with a gap that readers notice', async () => {
    const log = createLog()
    const writer = open(log)
    const drained = (async () => {
      for (;;) {
        log.complete()
        await new Promise((resolve) => setTimeout(resolve, 1))
        if (log.appended.flat().some(({ seq }, index) => seq !== index + 1)) return
      }
    })()
    for (let count = 0; count < 40; count++) {
      writer.write(delta('x'.repeat(50_000)))
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    await drained
    const parts = log.appended.flat()
    expect(textOf(parts).length).toBeLessThan(1_200_000)
    expect(parts.filter(({ seq }, index) => seq !== index + 1)).toHaveLength(1)
  })

  test('lets nobody wait for a log that hangs', async () => {
    const writer = open(createLog())
    writer.write(delta('a'))
    await writer.flush()
  })
})
