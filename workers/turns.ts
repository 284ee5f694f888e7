import { reportFailedStart } from '../src/lifecycle.ts'
import { createTurnWorker } from '../src/turn-worker.ts'
import { runWorkerProcess } from '../src/worker-process.ts'

/** A worker process for turns alone. */
await runWorkerProcess(createTurnWorker).catch(reportFailedStart)
