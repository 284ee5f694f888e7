/** A process that starts an embedded Postgres on the directory it is given, prints one line of JSON and stays. */
import { startEmbeddedPostgres } from '../../src/db/embedded.ts'

const [, , dataDir = ''] = process.argv
const { url, pid } = await startEmbeddedPostgres({ dataDir, flags: ['-c', 'fsync=off'] })
process.stdout.write(`${JSON.stringify({ url, pid })}\n`)
setInterval(() => undefined, 60_000)
