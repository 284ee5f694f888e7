/** Where a part stands: greater tuples come later. `seq` counts from 1 within an attempt. */
export interface PartPosition {
  turn: number
  step: number
  epoch: number
  attempt: number
  seq: number
}

const FIELDS = ['turn', 'step', 'epoch', 'attempt', 'seq'] as const

export const START: PartPosition = Object.freeze({ turn: 0, step: 0, epoch: 0, attempt: 0, seq: 0 })

/** A committed message stands behind every part of its step. */
export const afterStep = (turn: number, step: number): PartPosition => ({
  turn,
  step,
  epoch: Infinity,
  attempt: Infinity,
  seq: Infinity,
})

/** Negative where `a` comes first, 0 where they are the same place. */
export function comparePositions(a: PartPosition, b: PartPosition): number {
  for (const field of FIELDS) if (a[field] !== b[field]) return a[field] < b[field] ? -1 : 1
  return 0
}

/** Whether two parts belong to the same try at the same step. */
export const sameAttempt = (a: PartPosition, b: PartPosition): boolean =>
  comparePositions({ ...a, seq: 0 }, { ...b, seq: 0 }) === 0

/**
 * An event's id: `<snapshot version>.<turn>.<step>.<epoch>.<attempt>.<seq>`, where `~` stands behind every number.
 * It is made of what the writer or Postgres stamped, so every process gives the same.
 */
export const formatEventId = (snapshotVersion: number, position: PartPosition): string =>
  [snapshotVersion, ...FIELDS.map((field) => (position[field] === Infinity ? '~' : position[field]))].join(
    '.',
  )

/** A watcher's place in the stream of a chat: what it has seen of the committed state, and of what is being written. */
export interface Cursor {
  snapshotVersion: number
  position: PartPosition
}

/** Reads an event's id back. `null` for what no stream has given. */
export function parseEventId(id: string): Cursor | null {
  if (!/^\d{1,15}\.\d{1,15}(\.(\d{1,15}|~)){4}$/.test(id)) return null
  const [snapshotVersion = 0, turn = 0, step = 0, epoch = 0, attempt = 0, seq = 0] = id
    .split('.')
    .map((field) => (field === '~' ? Infinity : Number(field)))
  return { snapshotVersion, position: { turn, step, epoch, attempt, seq } }
}
