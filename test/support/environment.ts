/** What the run's servers and the tests have to agree on. */

/** Names by which the servers are handed to Jest's workers, which inherit the environment. */
export const TEST_ENVIRONMENT = {
  postgresUrl: 'TURNMILL_TEST_POSTGRES_URL',
  redisUrl: 'TURNMILL_TEST_REDIS_URL',
} as const

/** Holds all migrations and nobody's rows; every test database is a copy of it. */
export const TEMPLATE_DATABASE = 'turnmill_template'
