import { startAll, type AllInOne } from '../src/all-in-one.ts'
import { dropAmbientCredentials, loadConfig } from '../src/config/index.ts'
import { reportFailedStart, runProcess } from '../src/lifecycle.ts'
import { createLogger } from '../src/telemetry/logger.ts'

/** API and workers in one process, on whatever is configured; what is not is started here. */
async function main(): Promise<void> {
  const config = loadConfig()
  const logger = createLogger({ level: config.logLevel, role: 'all' })
  dropAmbientCredentials()
  await runProcess(logger, config.drainMs, async (shutdown) => {
    process.stdout.write(welcome(await startAll(config, logger, shutdown)))
  })
}

const welcome = ({ address, token, simulated }: AllInOne): string => `
Turnmill listens on ${address}
API key  ${token.reveal()}
${simulated === null ? '' : 'Models   those of the provider `simulated` make their answers up; OPENAI_API_KEY or ANTHROPIC_API_KEY brings real ones\n'}
Create a chat:

  curl ${address}/v1/chats \\
    -H 'Authorization: Bearer ${token.reveal()}' \\
    -H 'Content-Type: application/json' \\
    -d '{"content": "Hello!"}'

Watch it, with the chat's id from the answer:

  curl -N ${address}/v1/chats/<id>/stream -H 'Authorization: Bearer ${token.reveal()}'

Ctrl-C stops everything; the data stays.
`

await main().catch(reportFailedStart)
