/** The floor's worker: claim, read, stream the answer through the SDK, commit. */
import OpenAI from 'openai'
import { openPool, say, startWorker } from './ground.ts'
import { claimTurn, finishTurn, readHistory, readProvider } from './statements.ts'

interface Provider {
  base_url: string
  credential: string
  model: string
}

interface HistoryRow {
  role: 'user' | 'assistant'
  parts: { text: string }[]
}

const pool = openPool()
let client: OpenAI | undefined

await startWorker(async ({ turnId }) => {
  const [turn] = (await pool.query<{ chat_id: string }>(claimTurn(turnId))).rows
  if (turn === undefined) return
  const [history, providers] = await Promise.all([
    pool.query<HistoryRow>(readHistory(turn.chat_id)),
    pool.query<Provider>(readProvider()),
  ])
  const [provider] = providers.rows
  if (provider === undefined) throw new Error('there is no provider')
  const answer = await callModel(provider, history.rows)
  await pool.query(finishTurn(turnId, JSON.stringify([{ type: 'text', text: answer }])))
})

/** The whole answer is the stream, collected. */
async function callModel(provider: Provider, history: readonly HistoryRow[]): Promise<string> {
  client ??= new OpenAI({ apiKey: provider.credential, baseURL: provider.base_url, maxRetries: 0 })
  const input = history.map(({ role, parts }) => ({ role, content: parts.map((part) => part.text).join('') }))
  const stream = await client.responses.create({ model: provider.model, input, stream: true, store: false })
  let text = ''
  for await (const event of stream) if (event.type === 'response.output_text.delta') text += event.delta
  return text
}

say('working')
process.on('SIGTERM', () => process.exit(0))
