import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { parse } from 'yaml'
import { COMMANDS } from '../../src/cli.ts'
import { loadConfig, SETTINGS } from '../../src/config/index.ts'

interface Service {
  image: string
  build?: string
  command?: string[]
  environment?: Record<string, string>
  ports?: string[]
  healthcheck?: { test?: string[]; disable?: boolean }
  depends_on?: Record<string, { condition: string }>
  deploy?: { replicas: number }
  stop_grace_period?: string
  volumes?: string[]
}

interface ComposeFile {
  services: Record<string, Service>
  volumes: Record<string, null>
}

const ROOT = path.resolve(import.meta.dirname, '../..')
const read = (file: string): string => readFileSync(path.join(ROOT, file), 'utf8')

const compose = parse(read('docker-compose.yml'), { merge: true }) as ComposeFile
const dockerfile = read('Dockerfile')
const ours = Object.entries(compose.services).filter(([, { build }]) => build !== undefined)
const settingNames = new Set(Object.values(SETTINGS).map(({ name }) => name))

const serviceOf = (name: string): Service => {
  const service = compose.services[name]
  if (service === undefined) throw new Error(`there is no service ${name} in docker-compose.yml`)
  return service
}

/** `${NAME:-default}` and `${NAME:?why}` as Compose fills them in. */
const interpolate = (text: string, environment: Record<string, string> = {}): string =>
  text.replaceAll(/\$\{(\w+):([-?])([^}]*)\}/g, (_, name: string, kind: string, rest: string) => {
    const value = environment[name] ?? (kind === '-' ? rest : undefined)
    if (value === undefined) throw new Error(`${name}: ${rest}`)
    return value
  })

const SECRETS = {
  TURNMILL_API_KEY_PEPPER: Buffer.alloc(32).toString('base64'),
  TURNMILL_ENCRYPTION_KEYS: `k1:${Buffer.alloc(32).toString('base64')}`,
  TURNMILL_BOOTSTRAP_API_KEY: `tm_${'0'.repeat(32)}_${'0'.repeat(43)}`,
}

const environmentOf = ({ environment = {} }: Service): Record<string, string> =>
  Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, interpolate(value, SECRETS)]))

describe('docker-compose.yml', () => {
  test('has what a deployment is made of', () => {
    expect(Object.keys(compose.services)).toEqual(['postgres', 'redis', 'migrate', 'api', 'worker'])
  })

  test.each(ours)('%s runs a command of the CLI whose file the build makes', (_, { command }) => {
    expect(command).toHaveLength(1)
    const found = COMMANDS[command?.[0] as keyof typeof COMMANDS]
    const entry = 'entry' in found ? found.entry : 'src/cli'
    expect(existsSync(path.join(ROOT, `${entry}.ts`))).toBe(true)
  })

  test.each(ours)('%s sets nothing but settings that exist', (_, service) => {
    const names = Object.keys(service.environment ?? {})
    expect(names.filter((name) => !settingNames.has(name))).toEqual([])
  })

  test.each(ours)('%s has an environment that can be parsed', (_, service) => {
    const config = loadConfig(environmentOf(service))
    expect(config.databaseUrl).toMatch(/@postgres:5432\/turnmill$/)
    expect(config.redisUrl).toBe('redis://redis:6379')
  })

  test('API and workers share everything but their own settings', () => {
    const {
      TURNMILL_BOOTSTRAP_API_KEY: _key,
      TURNMILL_BULL_BOARD_ENABLED: _board,
      ...api
    } = serviceOf('api').environment ?? {}
    const { TURNMILL_WORKER_CONCURRENCY: _concurrency, ...worker } = serviceOf('worker').environment ?? {}
    expect(api).toEqual(worker)
  })

  test('shows the queue where somebody asks for it', () => {
    const value = serviceOf('api').environment?.['TURNMILL_BULL_BOARD_ENABLED'] ?? ''
    expect(interpolate(value)).toBe('false')
    expect(interpolate(value, { TURNMILL_BULL_BOARD_ENABLED: 'true' })).toBe('true')
  })

  test.each(Object.keys(SECRETS))('%s is demanded with a word on how to make it', (name) => {
    const value = serviceOf('api').environment?.[name] ?? ''
    expect(() => interpolate(value)).toThrow(/\.env/)
  })

  test('starts each service after what it stands on', () => {
    expect(serviceOf('migrate').depends_on).toEqual({ postgres: { condition: 'service_healthy' } })
    for (const name of ['api', 'worker'])
      expect(serviceOf(name).depends_on).toEqual({
        migrate: { condition: 'service_completed_successfully' },
        redis: { condition: 'service_healthy' },
      })
  })

  test('publishes the port that the image listens on to this machine, and nothing else', () => {
    const published = Object.entries(compose.services).flatMap(([name, { ports = [] }]) =>
      ports.map((port) => [name, interpolate(port)]),
    )
    expect(published).toEqual([['api', '127.0.0.1:3000:3000']])
    expect(dockerfile).toMatch(/^ENV .*\bPORT=3000\b/m)
    expect(dockerfile).toMatch(/^EXPOSE 3000$/m)
  })

  test('runs two workers and waits longer than they drain', () => {
    const { deploy, stop_grace_period: grace } = serviceOf('worker')
    expect(deploy?.replicas).toBe(2)
    expect(Number.parseInt(grace ?? '', 10) * 1000).toBeGreaterThan(loadConfig({}).drainMs + 5000)
  })

  test('checks the health of what listens, and only of that', () => {
    for (const name of ['migrate', 'worker']) expect(serviceOf(name).healthcheck).toEqual({ disable: true })
    for (const name of ['postgres', 'redis']) expect(serviceOf(name).healthcheck?.test).toBeDefined()
    expect(dockerfile).toMatch(/^HEALTHCHECK .*\/healthz/m)
  })

  test('has a Redis that forgets nothing', () => {
    expect(serviceOf('redis').command?.join(' ')).toBe(
      'redis-server --appendonly yes --maxmemory-policy noeviction',
    )
  })

  test('keeps the data in named volumes', () => {
    const used = Object.values(compose.services).flatMap(({ volumes = [] }) => volumes)
    expect(used.map((volume) => volume.split(':')[0])).toEqual(Object.keys(compose.volumes))
  })
})

describe('Dockerfile', () => {
  const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, paths = '']) =>
    paths.split(' '),
  )

  test.each(copied)('%s is there to be copied, and not ignored', (file) => {
    expect(existsSync(path.join(ROOT, file))).toBe(true)
    const allowed = read('.dockerignore').split('\n')
    expect(allowed).toContain(`!${file.split('/')[0] ?? ''}`)
  })

  test('sets nothing but settings that exist', () => {
    const names = [...dockerfile.matchAll(/^ENV (.+)$/gm)]
      .flatMap(([, pairs = '']) => pairs.split(' '))
      .map((pair) => pair.split('=')[0] ?? '')
    expect(names.filter((name) => name !== 'NODE_ENV' && !settingNames.has(name))).toEqual([])
  })

  test('starts Node itself, as an ordinary user, so that signals reach it', () => {
    expect(dockerfile).toMatch(/^ENTRYPOINT \["node", "bin\/turnmill\.js"\]$/m)
    expect(dockerfile).toMatch(/^CMD \["api"\]$/m)
    expect(dockerfile).toMatch(/^USER node$/m)
  })
})
