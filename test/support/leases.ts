/** Ways for a turn to be lost by its worker that do not wait for time to pass. */
import type { Turnmill } from './turnmill.ts'

/** As after the death of the worker, or a freeze: the lease has run out. A worker that lives may renew it. */
export const endLease = async ({ services }: Turnmill, turnId: string): Promise<void> => {
  await services.db.prisma.turn.update({ where: { id: turnId }, data: { leaseUntil: new Date(0) } })
}

/** As after a freeze: the lease ran out, and somebody took the turn over who died at once. */
export const takeAway = async ({ services }: Turnmill, turnId: string): Promise<void> => {
  await services.db.prisma.turn.update({
    where: { id: turnId },
    data: { epoch: { increment: 1 }, leaseUntil: new Date(0) },
  })
}
