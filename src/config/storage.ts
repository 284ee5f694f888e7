import { integer, milliseconds, text } from './setting.ts'

/** How a process uses Postgres and Redis. */
export const STORAGE = {
  databasePoolSize: integer(
    {
      name: 'TURNMILL_DATABASE_POOL_SIZE',
      default: '20',
      unit: 'connections',
      sentence: 'Connections to Postgres per process.',
    },
    2,
    1000,
  ),
  databaseSilenceMs: milliseconds({
    name: 'TURNMILL_DATABASE_SILENCE_MS',
    default: '700',
    sentence:
      'Longest time in which Postgres may answer nothing, not even a ping, before its connections are cut and what waits on them is answered with 503.',
  }),
  databaseConnectTimeoutMs: milliseconds({
    name: 'TURNMILL_DATABASE_CONNECT_TIMEOUT_MS',
    default: '3000',
    sentence: 'Longest wait for a database connection before a request is answered with 503.',
  }),
  queuePrefix: text({
    name: 'TURNMILL_QUEUE_PREFIX',
    default: 'turnmill',
    sentence: 'Begins every key in Redis, so that deployments can share one.',
  }),
}
