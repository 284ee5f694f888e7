import { SETTINGS, type Setting } from '../../src/config/index.ts'
import { MADE_BY, page, table } from './markdown.ts'

const settings: readonly Setting<unknown>[] = Object.values(SETTINGS)

/** No setting takes this, so that each says what it does take. */
const REFUSED = '\u0000'

/** What the parser accepts, in the words of its own refusal. */
function expected(setting: Setting<unknown>): string {
  try {
    setting.parse(REFUSED)
    return setting.type
  } catch (error) {
    return (error as Error).message
  }
}

const toRow = (setting: Setting<unknown>): string[] => [
  `\`${setting.name}\``,
  setting.sentence,
  setting.default === null ? '–' : `\`${setting.default}\`${setting.unit === null ? '' : ` ${setting.unit}`}`,
  expected(setting),
]

/** `docs/configuration.md` */
export const configurationPage = (): string =>
  page(
    MADE_BY,
    '# Configuration',
    'Everything is set through the environment and read once, when a process starts; every bad value is named in one error. ' +
      'An empty value counts as not set. Source: `SETTINGS` in `src/config/settings.ts`.',
    table(['name', 'what it does', 'default', 'takes'], settings.map(toRow)),
    'The API and its workers need the same `DATABASE_URL`, `REDIS_URL`, `TURNMILL_QUEUE_PREFIX`, `TURNMILL_API_KEY_PEPPER`, ' +
      '`TURNMILL_ENCRYPTION_KEYS`, `TURNMILL_CHAT_AI_GATEWAY_ROUTING_ENABLED` and `TURNMILL_ALLOW_PRIVATE_PROVIDERS` (a provider ' +
      'that the API takes, workers could refuse to call). `openssl rand -base64 32` makes 32 random bytes in base64.',
  )

const toLines = ({ name, sentence, default: value, unit }: Setting<unknown>): string => {
  const inUnit = unit === null ? '' : ` (${unit})`
  return `# ${sentence.replaceAll('`', '')}${inUnit}\n# ${name}=${value ?? ''}`
}

/** `.env.example` */
export const environmentExample = (): string =>
  page(
    [
      '# Made by `npm run generate`; changes here are lost. Copy it to .env and uncomment what you set.',
      '# Docker Compose reads .env by itself, Node with --env-file: node --env-file=.env bin/turnmill.js api',
    ].join('\n'),
    ...settings.map(toLines),
  )
