/** Makes the data directory of an embedded Postgres: once, and whole or not at all. */
import { execFile } from 'node:child_process'
import { chown, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { EmbeddedPostgresError, POSTGRES_ENVIRONMENT } from './postgres-binaries.ts'
import type { PostgresBinaries, PostgresUser } from './postgres-binaries.ts'

/** An initialised cluster on disk. */
export interface PostgresCluster {
  /** What Postgres calls PGDATA. */
  dataDirectory: string
  /** Of the superuser `postgres`. */
  password: string
}

const STAGING_PREFIX = 'initdb-'

/**
 * Finds the cluster in `dataDir`, or makes it with `initdb`.
 *
 * It is made in a directory beside its place and renamed into it, so a crash leaves no half of one behind, and of two
 * processes at once one wins.
 *
 * @param durable false skips the flush to disk at the end, for data that nobody will miss.
 * @throws {EmbeddedPostgresError} when `initdb` fails, or the cluster there is of another major version.
 */
export async function ensureCluster(
  dataDir: string,
  binaries: PostgresBinaries,
  durable: boolean,
): Promise<PostgresCluster> {
  const major = majorOf(binaries.version)
  const place = path.join(dataDir, `postgres-${major}`)
  if (!(await exists(place))) {
    await refuseOtherVersion(dataDir, major)
    await createCluster({ dataDir, place, binaries, durable })
  }
  return {
    dataDirectory: path.join(place, 'data'),
    password: await readFile(path.join(place, 'password'), 'utf8'),
  }
}

/** Where the cluster of any version would be, whether it is there or not. */
export async function listClusterDirectories(dataDir: string): Promise<string[]> {
  const versions = await listClusterVersions(dataDir)
  return versions.map((major) => path.join(dataDir, `postgres-${major}`, 'data'))
}

async function listClusterVersions(dataDir: string): Promise<string[]> {
  const names = await readdir(dataDir)
  return names.flatMap((name) => /^postgres-(\d+)$/.exec(name)?.[1] ?? [])
}

/** Starting with an empty database beside the old one would look like a loss of everything. */
async function refuseOtherVersion(dataDir: string, major: string): Promise<void> {
  const [other] = await listClusterVersions(dataDir)
  if (other === undefined) return
  throw new EmbeddedPostgresError(
    `${dataDir} holds a cluster of Postgres ${other}, expected ${major}: ` +
      'dump it with the release that made it and restore it here, or set another TURNMILL_DATA_DIR',
  )
}

interface NewCluster {
  dataDir: string
  place: string
  binaries: PostgresBinaries
  durable: boolean
}

async function createCluster({ dataDir, place, binaries, durable }: NewCluster): Promise<void> {
  await removeAbandonedStaging(dataDir)
  const staging = await mkdtemp(path.join(dataDir, STAGING_PREFIX))
  try {
    await initialise(staging, binaries, durable)
    await rename(staging, place)
  } catch (error) {
    await rm(staging, { recursive: true, force: true })
    if (await exists(place)) return // Another process was faster; starting the server will tell who has it.
    throw error
  }
}

async function initialise(staging: string, binaries: PostgresBinaries, durable: boolean): Promise<void> {
  const passwordFile = path.join(staging, 'password')
  const data = path.join(staging, 'data')
  await writeFile(passwordFile, crypto.randomUUID(), { mode: 0o600 })
  await mkdir(data, { mode: 0o700 })
  for (const file of [staging, passwordFile, data]) await giveTo(binaries.user, file)

  const command = binaries.command('initdb', [
    `--pgdata=${data}`,
    '--username=postgres',
    `--pwfile=${passwordFile}`,
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    '--locale=C',
    '--locale-provider=builtin',
    '--builtin-locale=C.UTF-8',
    ...(durable ? [] : ['--no-sync']),
  ])
  const options = { ...binaries.user, cwd: '/', env: POSTGRES_ENVIRONMENT }
  await promisify(execFile)('/usr/bin/env', command, options).catch((error: unknown) => {
    const { stderr } = error as { stderr?: string }
    throw new EmbeddedPostgresError(
      `initdb in ${data} failed, expected a new cluster: ${stderr?.trim() ?? ''}`,
      {
        cause: error,
      },
    )
  })
}

/** What a process that died in the middle left behind; younger ones may belong to a process at work. */
async function removeAbandonedStaging(dataDir: string): Promise<void> {
  const abandonedBefore = Date.now() - 10 * 60_000
  for (const name of await readdir(dataDir)) {
    if (!name.startsWith(STAGING_PREFIX)) continue
    const directory = path.join(dataDir, name)
    const { mtimeMs } = await stat(directory)
    if (mtimeMs < abandonedBefore) await rm(directory, { recursive: true, force: true })
  }
}

async function giveTo(user: PostgresUser | undefined, file: string): Promise<void> {
  if (user !== undefined) await chown(file, user.uid, user.gid)
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  )
}

function majorOf(version: string): string {
  return version.split('.')[0] ?? version
}
