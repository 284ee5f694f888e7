import type { Turnmill } from './turnmill.ts'

/** Gives what resolves once every job that was to be enqueued is. */
export function watchEnqueueing({ services: { queue } }: Turnmill): () => Promise<unknown> {
  const pending: Promise<void>[] = []
  const enqueue = queue.enqueue.bind(queue)
  queue.enqueue = (...job) => {
    const done = enqueue(...job)
    pending.push(done)
    return done
  }
  return () => Promise.allSettled(pending.splice(0))
}
