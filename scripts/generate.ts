/**
 * Writes the pages that are made from the code: `npm run generate`. With `--check` it writes nothing and fails where a
 * page is not what the code says.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { cliPage } from './generate/cli.ts'
import { configurationPage, environmentExample } from './generate/configuration.ts'
import { errorsPage } from './generate/errors.ts'
import { describeApi } from './generate/openapi.ts'
import { turnStatesPage } from './generate/turn-states.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** Every generated file, by its path from the project's root. */
const PAGES: Readonly<Record<string, () => string | Promise<string>>> = {
  '.env.example': environmentExample,
  'docs/cli.md': cliPage,
  'docs/configuration.md': configurationPage,
  'docs/errors.md': errorsPage,
  'docs/openapi.json': describeApi,
  'docs/turn-states.md': turnStatesPage,
}

interface Page {
  name: string
  file: string
  text: string
}

const render = (): Promise<Page[]> =>
  Promise.all(
    Object.entries(PAGES).map(async ([name, page]) => ({
      name,
      file: path.join(ROOT, name),
      text: await page(),
    })),
  )

async function isStale({ file, text }: Page): Promise<boolean> {
  return (await readFile(file, 'utf8').catch(() => null)) !== text
}

async function findStale(pages: readonly Page[]): Promise<Page[]> {
  const stale = await Promise.all(pages.map(isStale))
  return pages.filter((_, index) => stale[index])
}

async function write({ name, file, text }: Page): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true })
  await writeFile(file, text)
  console.log(`wrote ${name}`)
}

function reportStale(stale: readonly Page[]): void {
  if (stale.length === 0) return
  const names = stale.map(({ name }) => `  ${name}`).join('\n')
  console.error(`these files are not what the code says:\n${names}\nrun \`npm run generate\` and commit them`)
  process.exitCode = 1
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { check: { type: 'boolean', default: false } } })
  const stale = await findStale(await render())
  if (values.check) reportStale(stale)
  else for (const page of stale) await write(page)
}

await main()
