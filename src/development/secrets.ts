import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { Config } from '../config/index.ts'
import { newToken } from '../keys/index.ts'
import { Secret } from '../protocol/secret.ts'

interface StoredSecrets {
  bootstrapApiKey: string
  apiKeyPepper: string
  encryptionKeys: string
}

/**
 * The configuration with the secrets that nobody set. They are made once and kept in the data directory, readable by
 * its owner only, so that a second start knows the first one's keys.
 */
export function withLocalSecrets(config: Config): Config {
  const { bootstrapApiKey, apiKeyPepper, encryptionKeys } = config
  if (bootstrapApiKey !== null && apiKeyPepper !== null && encryptionKeys !== null) return config
  const stored = readOrMake(path.join(config.dataDir, 'secrets.json'))
  return {
    ...config,
    bootstrapApiKey: bootstrapApiKey ?? new Secret(stored.bootstrapApiKey),
    apiKeyPepper: apiKeyPepper ?? new Secret(stored.apiKeyPepper),
    encryptionKeys: encryptionKeys ?? new Secret(stored.encryptionKeys),
  }
}

function readOrMake(file: string): StoredSecrets {
  const random = (): string => randomBytes(32).toString('base64')
  const made: StoredSecrets = {
    bootstrapApiKey: newToken().reveal(),
    apiKeyPepper: random(),
    encryptionKeys: `local:${random()}`,
  }
  mkdirSync(path.dirname(file), { recursive: true })
  try {
    // Two processes that start at once agree on the file that was there first.
    writeFileSync(file, JSON.stringify(made, null, 2), { mode: 0o600, flag: 'wx' })
    return made
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return JSON.parse(readFileSync(file, 'utf8')) as StoredSecrets
  }
}
