import { createAuxiliaryWorker } from '../src/auxiliary-worker.ts'
import { reportFailedStart } from '../src/lifecycle.ts'
import { createTurnWorker } from '../src/turn-worker.ts'
import { runWorkerProcess } from '../src/worker-process.ts'

/** A worker process for both queues. */
await runWorkerProcess(createTurnWorker, createAuxiliaryWorker).catch(reportFailedStart)
