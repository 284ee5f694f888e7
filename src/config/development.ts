import { secret, text } from './setting.ts'

/** What `npm start` seeds, and where it keeps what it makes. */
export const DEVELOPMENT = {
  openaiApiKey: secret({
    name: 'OPENAI_API_KEY',
    sentence:
      'Read by `npm start` only, to seed the provider `openai`; workers drop it from their environment.',
  }),
  anthropicApiKey: secret({
    name: 'ANTHROPIC_API_KEY',
    sentence:
      'Read by `npm start` only, to seed the provider `anthropic`; workers drop it from their environment.',
  }),
  openaiModel: text({
    name: 'TURNMILL_OPENAI_MODEL',
    default: 'gpt-5.4-mini',
    sentence: 'The model that `npm start` seeds with `OPENAI_API_KEY`.',
  }),
  anthropicModel: text({
    name: 'TURNMILL_ANTHROPIC_MODEL',
    default: 'claude-sonnet-5-5',
    sentence: 'The model that `npm start` seeds with `ANTHROPIC_API_KEY`.',
  }),
  dataDir: text({
    name: 'TURNMILL_DATA_DIR',
    default: '.turnmill',
    sentence: 'Where `npm start` keeps the embedded Postgres and the secrets it made.',
  }),
}
