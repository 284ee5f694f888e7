import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { newToken } from '../../src/keys/index.ts'
import type { Cleanup } from './cleanup.ts'
import type { AcceptedTurn, Contender, Stage } from './contender.ts'
import { postJson, untilEvent } from './http.ts'
import { startNodeProcess, type NodeProcess } from './node-process.ts'

const OWN_CHECKOUT = fileURLToPath(new URL('../..', import.meta.url))
const PROMPT = 'How does the mill turn?'

export interface BenchUser {
  id: string
  /** Of an API key that reads and writes chats. */
  token: string
}

/** Turnmill, ready for its users. */
export interface Deployment {
  /** The API's, without a path. */
  url: string
  users: readonly BenchUser[]
  api: NodeProcess
  worker: NodeProcess
}

export interface DeploymentOptions {
  /** Where the programs are taken from; ours where it is empty. */
  checkout?: string | undefined
  /** What differs from the defaults, as environment variables. */
  settings?: Readonly<Record<string, string>>
}

/**
 * Turnmill as it is deployed: `src/main.ts` and `workers/turns.ts`, each in a process of its own, set up over its HTTP
 * API.
 */
export async function deployTurnmill(
  cleanup: Cleanup,
  stage: Stage,
  { checkout = '', settings = {} }: DeploymentOptions,
): Promise<Deployment> {
  const root = checkout === '' ? OWN_CHECKOUT : path.resolve(checkout)
  const adminToken = newToken().reveal()
  const env = { ...environment(stage, adminToken), ...settings }
  const start = (name: string, file: string, readyMessage: string): Promise<NodeProcess> =>
    startNodeProcess(cleanup, {
      name: `turnmill ${name} ${stage.backend}`,
      entry: path.join(root, file),
      env,
      readyMessage,
      ...(stage.profileDir === undefined ? {} : { profileDir: stage.profileDir }),
    })

  const api = await start('api', 'src/main.ts', 'listening')
  const url = `http://127.0.0.1:${portOf(api)}`
  await setUpModel(url, adminToken, stage.providerUrl)
  const users: BenchUser[] = []
  for (let user = 0; user < stage.users; user++) users.push(await createUser(url, adminToken, user))
  const worker = await start('worker', 'workers/turns.ts', 'working')
  return { url, users, api, worker }
}

/** Turnmill under the load of short chats. */
export async function startTurnmill(cleanup: Cleanup, stage: Stage, checkout?: string): Promise<Contender> {
  const { url, users, api, worker } = await deployTurnmill(cleanup, stage, { checkout })
  const submit = (user: number): Promise<AcceptedTurn> => submitChat(url, users[user]?.token ?? '')
  return { name: 'turnmill', databaseUrl: stage.databaseUrl, api, worker, submit }
}

function environment({ databaseUrl, redisUrl }: Stage, adminToken: string): Record<string, string> {
  const random = (): string => randomBytes(32).toString('base64')
  return {
    DATABASE_URL: databaseUrl,
    ...(redisUrl === null ? {} : { REDIS_URL: redisUrl }),
    PORT: '0',
    LOG_LEVEL: 'info',
    TURNMILL_BOOTSTRAP_API_KEY: adminToken,
    TURNMILL_API_KEY_PEPPER: random(),
    TURNMILL_ALLOW_PRIVATE_PROVIDERS: 'true',
    TURNMILL_ENCRYPTION_KEYS: `bench:${random()}`,
    TURNMILL_DRAIN_MS: '2000',
    // One model call per turn, as the peers make.
    TURNMILL_AUTO_TITLES: 'false',
  }
}

const portOf = ({ ready }: NodeProcess): number => (ready.addresses as { port: number }[])[0]?.port ?? 0

async function setUpModel(url: string, token: string, providerUrl: string): Promise<void> {
  const provider = await postJson<{ id: string }>(`${url}/v1/providers`, {
    token,
    body: { name: 'bench', type: 'openai', baseUrl: providerUrl, keys: ['bench-provider-key'] },
  })
  await postJson(`${url}/v1/model-configs`, {
    token,
    body: { providerId: provider.id, model: 'bench-1', isDefault: true },
  })
}

async function createUser(url: string, adminToken: string, number: number): Promise<BenchUser> {
  const asAdmin = { token: adminToken }
  const { id } = await postJson<{ id: string }>(`${url}/v1/users`, {
    ...asAdmin,
    body: { name: `user ${number}` },
  })
  const body = { name: 'bench', userId: id, scopes: ['chats:read', 'chats:write'] }
  const { token } = await postJson<{ token: string }>(`${url}/v1/api-keys`, { ...asAdmin, body })
  return { id, token }
}

export interface StartedChat {
  chat: { id: string }
  turn: { id: string }
}

export const createChat = (url: string, token: string, content: string): Promise<StartedChat> =>
  postJson<StartedChat>(`${url}/v1/chats`, { token, body: { content } })

/** Every turn is the first of a chat of its own: the dearest kind, and no two wait for each other. */
async function submitChat(url: string, token: string): Promise<AcceptedTurn> {
  const { chat, turn } = await createChat(url, token, PROMPT)
  const stream = `${url}/v1/chats/${chat.id}/stream`
  return { turnId: turn.id, watchFirstPart: () => untilEvent(stream, token, beginsAnswer) }
}

/** A part; or the whole message, for a watcher who came when it was committed already. */
const beginsAnswer = (block: string): boolean =>
  /^event: part$/m.test(block) || (/^event: message$/m.test(block) && block.includes('"role":"assistant"'))
