#!/usr/bin/env node
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** What the project is written for; from this version on a clone runs without a build. */
const NODE_MAJOR = 24

const fromRoot = (path) => new URL(`../${path}`, import.meta.url)
const built = existsSync(fromRoot('dist/src/cli.js'))

/** A module of the build where there is one, else of the source. */
const load = (module) => import(fromRoot(built ? `dist/${module}.js` : `${module}.ts`).href)

/** The Node that npm installed beside the project, for shells that have an older one. */
const findNode = () =>
  ['node_modules/.bin/node', '../.bin/node']
    .map((path) => fileURLToPath(fromRoot(path)))
    .find((path) => existsSync(path) && realpathSync(path) !== realpathSync(process.execPath))

/** The name by which a child is called that is to end with us. */
const LINKED = 'turnmill-linked'

/**
 * Runs the same command under another Node: in a session of its own, so that every signal reaches it once, through us.
 * Where a signal ends us that nobody can catch, the channel between us closes.
 */
function runUnder(node) {
  const child = spawn(node, process.argv.slice(1), {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    detached: true,
    argv0: LINKED,
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('exit', (code) => process.exit(code ?? 1))
}

/** Stops, as if it were told to, when the process that runs us under this Node is gone. */
function endWithParent() {
  const stop = () => process.kill(process.pid, 'SIGTERM')
  if (!process.connected) return stop()
  process.on('disconnect', stop)
  process.channel.unref()
}

async function run() {
  const { runCli } = await load('src/cli')
  const exitCode = await runCli(process.argv.slice(2), {
    version: JSON.parse(readFileSync(fromRoot('package.json'), 'utf8')).version,
    print: (text) => process.stdout.write(`${text}\n`),
    printError: (text) => process.stderr.write(`${text}\n`),
    startProcess: load,
  })
  if (exitCode !== null) process.exitCode = exitCode
}

if (process.argv0 === LINKED) endWithParent()
const runsHere = Number(process.versions.node.split('.')[0]) >= NODE_MAJOR
const node = runsHere ? undefined : findNode()
if (node !== undefined) runUnder(node)
else if (runsHere || built) await run()
else {
  const found = `this is Node ${process.versions.node}, expected ${NODE_MAJOR} or later`
  process.stderr.write(`turnmill: ${found}; run npm ci, which installs one\n`)
  process.exitCode = 1
}
