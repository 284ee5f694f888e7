import type { Database } from '../db/index.ts'
import type { PoolSlots } from './admission.ts'
import type { ProducerLimits } from './produce.ts'
import type { Listeners, Publishing } from './publishing.ts'
import type { FamilyLimits } from './subagents.ts'

/** What the moves of chats are bound to: the database or a transaction, the limits, and who is told. */
export interface Bound extends Listeners, Publishing {
  db: Database
  slots: PoolSlots
  /** Of what users and subagents may begin. */
  limits: ProducerLimits & FamilyLimits
  leaseMs: number
  /** What small models are asked beside the turns. */
  auxiliary: {
    /** Whether a chat that nobody named gets a title after its first answer. */
    titles: boolean
    /** Whether a chat gets a label of what its turn is doing. */
    labels: boolean
  }
  onChildRested(parentId: string): Promise<void>
}
