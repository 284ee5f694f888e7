import { choice, integer, text, url } from './setting.ts'

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

/** Where a process listens, what it stands on, what it logs. */
export const PROCESS = {
  databaseUrl: url(
    {
      name: 'DATABASE_URL',
      example: 'postgres://user:password@localhost:5432/turnmill',
      sentence: 'Postgres, the truth. Without it an embedded one is started in the data directory.',
    },
    'postgres:',
    'postgresql:',
  ),
  redisUrl: url(
    {
      name: 'REDIS_URL',
      example: 'redis://localhost:6379',
      sentence: 'Redis, for the queue and the part log. Without it both live in Postgres.',
    },
    'redis:',
    'rediss:',
  ),
  host: text({ name: 'HOST', default: '127.0.0.1', sentence: 'The address the API listens on.' }),
  port: integer(
    { name: 'PORT', default: '3000', sentence: 'The port the API listens on; 0 takes a free one.' },
    0,
    65_535,
  ),
  metricsPort: integer(
    {
      name: 'TURNMILL_METRICS_PORT',
      sentence: 'The port on which a worker process serves /metrics and /healthz; none where it is not set.',
    },
    0,
    65_535,
  ),
  logLevel: choice(
    { name: 'LOG_LEVEL', default: 'info', sentence: 'The least severe level that is logged.' },
    LOG_LEVELS,
  ),
}
