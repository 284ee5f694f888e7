import { Preview } from '../../src/streams/preview.ts'
import type { LoggedPart } from '../../src/streams/index.ts'

/** A part at `<turn>.<step>.<epoch>.<attempt>.<seq>`. */
function part(place: string): LoggedPart {
  const [turn = 0, step = 0, epoch = 0, attempt = 0, seq = 0] = place.split('.').map(Number)
  return {
    turn,
    step,
    epoch,
    attempt,
    seq,
    snapshotVersion: 1,
    part: { type: 'text-delta', id: '0', text: place },
  }
}

/** Judges a part and, where it may be shown, shows it. */
const offer = (preview: Preview, one: LoggedPart): string => {
  const verdict = preview.judge(one)
  if (verdict === 'deliver' || verdict === 'reset-and-deliver') preview.delivered(one)
  return verdict
}

describe('a preview (I9)', () => {
  test('shows parts that follow each other, each once', () => {
    const preview = new Preview()
    expect([1, 2, 2, 1, 3].map((seq) => offer(preview, part(`1.1.1.1.${seq}`)))).toEqual([
      'deliver',
      'deliver',
      'drop',
      'drop',
      'deliver',
    ])
  })

  test('notices missing parts, at the start of an attempt too', () => {
    const preview = new Preview()
    expect(offer(preview, part('1.1.1.1.2'))).toBe('gap')
    offer(preview, part('1.1.1.1.1'))
    expect(offer(preview, part('1.1.1.1.3'))).toBe('gap')
  })

  test('withdrawn, shows nothing more of that attempt, and the next one again', () => {
    const preview = new Preview()
    offer(preview, part('1.1.1.1.1'))
    expect(preview.withdraw(part('1.1.1.1.3'))).toBe(true)
    expect(offer(preview, part('1.1.1.1.4'))).toBe('drop')
    expect(offer(preview, part('1.1.1.2.1'))).toBe('deliver')
  })

  test('starts over where another attempt or epoch begins', () => {
    const preview = new Preview()
    offer(preview, part('1.1.1.1.1'))
    expect(offer(preview, part('1.1.1.2.1'))).toBe('reset-and-deliver')
    expect(offer(preview, part('1.1.2.1.1'))).toBe('reset-and-deliver')
    expect(offer(preview, part('1.1.1.2.2'))).toBe('drop')
  })

  test('shows no part of an attempt that was given up, and those of the next', () => {
    const preview = new Preview()
    const failed = { turn: 1, step: 1, epoch: 1, attempt: 1 }
    offer(preview, part('1.1.1.1.1'))
    expect(preview.overtakes(failed)).toBe(false)
    expect(preview.drop()).toBe(true)
    expect(offer(preview, part('1.1.1.1.2'))).toBe('drop')
    expect(offer(preview, part('1.1.1.2.1'))).toBe('deliver')
    expect(preview.overtakes(failed)).toBe(true)
    expect(offer(preview, part('1.1.1.2.2'))).toBe('deliver')
  })

  test('shows no part of a step after its message', () => {
    const preview = new Preview()
    offer(preview, part('1.1.1.1.1'))
    preview.committed(1, 1)
    expect(offer(preview, part('1.1.1.1.2'))).toBe('drop')
    expect(offer(preview, part('1.1.9.9.1'))).toBe('drop')
    expect(offer(preview, part('1.2.1.1.1'))).toBe('deliver')
  })

  test('ends with its turn, and says whether something must be dropped', () => {
    const preview = new Preview()
    offer(preview, part('1.1.1.1.1'))
    expect(preview.ended(1)).toBe(true)
    expect(preview.ended(1)).toBe(false)
    expect(offer(preview, part('1.2.1.1.1'))).toBe('drop')
    expect(offer(preview, part('2.1.1.1.1'))).toBe('deliver')
  })

  test('of a committed answer leaves nothing to drop', () => {
    const preview = new Preview()
    offer(preview, part('1.1.1.1.1'))
    preview.committed(1, 1)
    expect(preview.ended(1)).toBe(false)
  })
})
