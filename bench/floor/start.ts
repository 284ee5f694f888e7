import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import type { Cleanup } from '../support/cleanup.ts'
import type { AcceptedTurn, Contender, Stage } from '../support/contender.ts'
import { postJson } from '../support/http.ts'
import { startNodeProcess, type NodeProcess } from '../support/node-process.ts'
import { SCHEMA } from './statements.ts'

const PROMPT = 'How does the mill turn?'

/**
 * The least program of the same parts: Fastify, BullMQ, the SDK and six prepared statements, as durable as Turnmill
 * (three commits per turn, each on the disk before anybody is told) and nothing else: no gateway, no streams, no fences,
 * no admission, no recovery.
 */
export async function startFloor(cleanup: Cleanup, stage: Stage): Promise<Contender> {
  const tokens = await setUp(stage)
  const env = {
    DATABASE_URL: stage.databaseUrl,
    ...(stage.redisUrl === null ? {} : { REDIS_URL: stage.redisUrl }),
  }
  const start = (name: string, readyMessage: string): Promise<NodeProcess> =>
    startNodeProcess(cleanup, {
      name: `floor ${name} ${stage.backend}`,
      entry: fileURLToPath(new URL(`./${name}.ts`, import.meta.url)),
      env,
      readyMessage,
      ...(stage.profileDir === undefined ? {} : { profileDir: stage.profileDir }),
    })
  const api = await start('api', 'listening')
  const worker = await start('worker', 'working')
  const url = `http://127.0.0.1:${(api.ready.addresses as { port: number }[])[0]?.port ?? 0}/turns`
  const submit = async (user: number): Promise<AcceptedTurn> => {
    const options = { token: tokens[user] ?? '', body: { content: PROMPT } }
    const { turnId } = await postJson<{ turnId: string }>(url, options)
    return { turnId, watchFirstPart: null }
  }
  return { name: 'floor', databaseUrl: stage.databaseUrl, api, worker, submit }
}

/** Tables, provider and keys. Gives each user's token. */
async function setUp({ databaseUrl, providerUrl, users }: Stage): Promise<string[]> {
  const tokens = Array.from({ length: users }, () => randomUUID())
  const client = new pg.Client({ connectionString: databaseUrl })
  await client.connect()
  try {
    await client.query(SCHEMA)
    await client.query('insert into providers values (1, $1, $2, $3)', [
      providerUrl,
      'bench-provider-key',
      'bench-1',
    ])
    for (const token of tokens)
      await client.query('insert into keys values ($1, $2, $3)', [randomUUID(), randomUUID(), token])
  } finally {
    await client.end()
  }
  return tokens
}
