import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { z } from 'zod'
import type { Config } from '../config/index.ts'
import { newToken } from '../keys/index.ts'
import { Secret } from '../protocol/secret.ts'

const storedSecrets = z.object({
  bootstrapApiKey: z.string(),
  apiKeyPepper: z.string(),
  encryptionKeys: z.string(),
})

type StoredSecrets = z.infer<typeof storedSecrets>

/** What of the database only the secrets can open that it was made with. */
export interface Sealed {
  apiKeys: boolean
  credentials: boolean
}

/**
 * The configuration with the secrets that nobody set. They are made once and kept in the data directory, readable by
 * its owner only, so that a second start knows the first one's keys.
 *
 * @param readSealed asked before secrets are made.
 * @throws {Error} naming the file that is missing or cannot be read, and what to do.
 */
export async function withLocalSecrets(config: Config, readSealed: () => Promise<Sealed>): Promise<Config> {
  const { bootstrapApiKey, apiKeyPepper, encryptionKeys } = config
  if (bootstrapApiKey !== null && apiKeyPepper !== null && encryptionKeys !== null) return config
  const file = path.resolve(config.dataDir, 'secrets.json')
  const stored = readSecrets(file) ?? (await makeSecrets(file, config, readSealed))
  return {
    ...config,
    bootstrapApiKey: bootstrapApiKey ?? new Secret(stored.bootstrapApiKey),
    apiKeyPepper: apiKeyPepper ?? new Secret(stored.apiKeyPepper),
    encryptionKeys: encryptionKeys ?? new Secret(stored.encryptionKeys),
  }
}

/** @throws {Error} where there is a file that is none of ours. */
function readSecrets(file: string): StoredSecrets | null {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw unusable(file, error)
  }
  try {
    return storedSecrets.parse(JSON.parse(text))
  } catch {
    // What is wrong with it is not repeated: it may be a secret.
    throw new Error(`${file} does not hold the three secrets that npm start wrote there; ${RESTORE}`)
  }
}

const RESTORE =
  'put it back from a copy, or begin anew without the data: with another TURNMILL_DATA_DIR, or, where DATABASE_URL is set, another database and without that file'

/** @throws {Error} where the data directory is none and cannot be made. */
export function demandDirectory(dataDir: string): void {
  try {
    mkdirSync(dataDir, { recursive: true })
  } catch (error) {
    throw unusable(path.resolve(dataDir), error)
  }
}

const unusable = (place: string, cause: unknown): Error =>
  new Error(
    `${place} cannot be used, expected TURNMILL_DATA_DIR to name a directory that this process may write to: ${(cause as Error).message}`,
    { cause },
  )

async function makeSecrets(
  file: string,
  { apiKeyPepper, encryptionKeys }: Config,
  readSealed: () => Promise<Sealed>,
): Promise<StoredSecrets> {
  const sealed = await readSealed()
  if ((apiKeyPepper === null && sealed.apiKeys) || (encryptionKeys === null && sealed.credentials))
    throw new Error(
      `${file} is missing, and the database holds API keys or credentials that only its secrets open; ${RESTORE}. Where they were set in the environment, set TURNMILL_API_KEY_PEPPER and TURNMILL_ENCRYPTION_KEYS again`,
    )
  const random = (): string => randomBytes(32).toString('base64')
  const made: StoredSecrets = {
    bootstrapApiKey: newToken().reveal(),
    apiKeyPepper: random(),
    encryptionKeys: `local:${random()}`,
  }
  demandDirectory(path.dirname(file))
  try {
    // Two processes that start at once agree on the file that was there first.
    writeFileSync(file, JSON.stringify(made, null, 2), { mode: 0o600, flag: 'wx' })
    return made
  } catch (error) {
    const written = (error as NodeJS.ErrnoException).code === 'EEXIST' ? readSecrets(file) : null
    if (written === null) throw unusable(file, error)
    return written
  }
}
