import type { NodeProcess } from './node-process.ts'

/** A turn that the API has taken. */
export interface AcceptedTurn {
  turnId: string
  /** Resolves when a watcher who connects now has seen the answer begin; `null` where nothing streams. */
  watchFirstPart: (() => Promise<void>) | null
}

/** A program under load: an API process and a worker process. Its table `turns` has an id and a state. */
export interface Contender {
  name: 'turnmill' | 'floor'
  databaseUrl: string
  api: NodeProcess
  worker: NodeProcess
  /** Sends a message that starts a turn. */
  submit(user: number): Promise<AcceptedTurn>
}

/** What a contender is started on. */
export interface Stage {
  backend: 'redis' | 'postgres'
  /** A database of its own, empty. */
  databaseUrl: string
  /** A database number of its own; `null` where the queue lives in Postgres. */
  redisUrl: string | null
  providerUrl: string
  users: number
  /** Where CPU profiles are written; `undefined` for none. */
  profileDir: string | undefined
}
