import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { TOOL_NAME } from '../protocol/tools.ts'
import type { Tool } from './contract.ts'

/**
 * Loads the tools of a deployment: the default export of a module, which is a tool, an array of tools, or a function
 * that gives one of the two.
 *
 * @param file absolute, or relative to the working directory; .js, or .ts that needs no compiling.
 * @throws {Error} naming the module, and what is wrong with it.
 */
export async function loadToolModule(file: string): Promise<Tool[]> {
  const resolved = path.resolve(file)
  const exported = await importDefault(resolved)
  const given = isFunction(exported) ? await callExport(resolved, exported) : exported
  const tools: unknown[] = Array.isArray(given) ? given : [given]
  return tools.map((tool, index) => demandTool(resolved, tool, index))
}

async function importDefault(file: string): Promise<unknown> {
  const module = await attempt(file, 'be loaded', () => import(pathToFileURL(file).href) as Promise<object>)
  if ('default' in module) return module.default
  throw new Error(`the tools module ${file} has no default export, expected tools made by defineTool`)
}

const callExport = (file: string, exported: () => unknown): Promise<unknown> =>
  attempt(file, 'give its tools', async () => exported())

const isFunction = (value: unknown): value is () => unknown => typeof value === 'function'

type Attempted = 'be loaded' | 'give its tools'

async function attempt<T>(file: string, what: Attempted, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(`the tools module ${file} could not ${what}: ${reason}${adviceOn(error)}`, {
      cause: error,
    })
  }
}

/** In a clone the name `turnmill` leads to the build, which need not be there. Source: `url` of Node's ERR_MODULE_NOT_FOUND. */
function adviceOn(error: unknown): string {
  const missing = error instanceof Error && 'url' in error ? String(error.url) : ''
  return missing.includes('/dist/') ? '; what lies in dist is made by `npm run build`' : ''
}

function demandTool(file: string, value: unknown, index: number): Tool {
  if (isTool(value)) return value
  throw new Error(`the tools module ${file}: its tool number ${index + 1} was not made by defineTool`)
}

/** By its form: the module may have made it with another copy of this package. */
function isTool(value: unknown): value is Tool {
  if (typeof value !== 'object' || value === null) return false
  const { definition, execute, check, needsApproval, timeoutMs } = value as Partial<Tool>
  return (
    definition?.kind === 'function' &&
    TOOL_NAME.test(definition.name) &&
    [execute, check, needsApproval].every((one) => typeof one === 'function') &&
    typeof timeoutMs === 'number'
  )
}
