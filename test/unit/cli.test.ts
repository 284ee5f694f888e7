import { runCli, COMMANDS, type CliEffects } from '../../src/cli.ts'

/** What a run printed and started. */
function record() {
  const said = { out: '', err: '', started: [] as string[] }
  const effects: CliEffects = {
    version: '1.2.3',
    print: (text) => (said.out += text),
    printError: (text) => (said.err += text),
    startProcess: async (name) => void said.started.push(name),
  }
  return { said, effects }
}

async function run(...args: string[]) {
  const { said, effects } = record()
  return { exitCode: await runCli(args, effects), ...said }
}

describe('the command line', () => {
  test.each([
    ['start', 'workers/main'],
    ['api', 'src/main'],
    ['worker', 'workers/all'],
    ['worker turns', 'workers/turns'],
    ['worker auxiliary', 'workers/auxiliary'],
  ])('%s starts %s and lets it live', async (command, entry) => {
    expect(await run(...command.split(' '))).toEqual({ exitCode: null, out: '', err: '', started: [entry] })
  })

  test.each([['help'], ['--help'], ['-h'], ['worker', '--help']])(
    '%s shows every command',
    async (...args) => {
      const { exitCode, out, started } = await run(...args)
      expect(exitCode).toBe(0)
      for (const name of Object.keys(COMMANDS)) expect(out).toContain(`  ${name} `)
      expect(started).toEqual([])
    },
  )

  test('--version shows the version', async () => {
    expect(await run('--version')).toMatchObject({ exitCode: 0, out: '1.2.3' })
  })

  test.each([
    [[], 'no command was given'],
    [['frobnicate'], 'there is no command frobnicate'],
    [['toString'], 'there is no command toString'],
    [['api', 'twice'], 'api takes no arguments, got twice'],
  ])('%j is not understood: help on standard error, exit code 2', async (args, problem) => {
    const { exitCode, out, err } = await run(...args)
    expect({ exitCode, out }).toEqual({ exitCode: 2, out: '' })
    expect(err).toContain(problem)
    expect(err).toContain('usage: turnmill')
  })
})
