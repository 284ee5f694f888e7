import { createAuxiliaryWorker } from '../src/auxiliary-worker.ts'
import { reportFailedStart } from '../src/lifecycle.ts'
import { runWorkerProcess } from '../src/worker-process.ts'

/** A worker process for titles and status labels alone. */
await runWorkerProcess(createAuxiliaryWorker).catch(reportFailedStart)
