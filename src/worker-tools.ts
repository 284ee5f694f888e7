import { access, constants, stat } from 'node:fs/promises'
import { createComputerTools, createPlaywrightDriver, type ComputerTools } from './computer/index.ts'
import type { Config } from './config/index.ts'
import { createProviderFetch, destinationsOf } from './models/index.ts'
import type { Services } from './services.ts'
import {
  createBuiltinTools,
  createMcpServerLoader,
  createMcpTools,
  createToolSource,
  loadToolModule,
  type Tool,
  type ToolSource,
} from './tools/index.ts'

/** What the models of a worker may use. */
export interface WorkerTools {
  source: ToolSource
  /** `null` where this worker has no computers. */
  computers: ComputerTools | null
  close(): Promise<void>
}

/**
 * Opens all tools of a worker: built-in ones, those of its module and its host, MCP servers, and computers.
 *
 * @param own those of the host.
 * @throws {Error} where a module cannot be loaded, two tools have one name, or there is no Chromium where there should be.
 */
export async function openWorkerTools(services: Services, own: readonly Tool[] = []): Promise<WorkerTools> {
  const { config, db, encryption, logger, providerFetch } = services
  const fetch = createProviderFetch({ allowPrivate: config.allowPrivateWebFetch })
  const builtin = createBuiltinTools({ fetch, now: Date.now, names: config.builtinTools })
  const loaded = config.toolsModule === null ? [] : await loadToolModule(config.toolsModule)
  const servers = createMcpServerLoader({ db, encryption, logger })
  const mcp = createMcpTools({ servers, fetch: providerFetch, logger })
  const source = createToolSource({
    tools: [...own, ...loaded, ...builtin],
    mcp,
    timeoutMs: config.toolTimeoutMs,
    logger,
  })
  const computers = await openComputers(config)
  return {
    source,
    computers,
    close: async () => {
      await Promise.all([mcp.close(), computers?.stop()])
    },
  }
}

/** @throws {Error} where there is no such Chromium: the first display would be the first to know. */
async function openComputers(config: Config): Promise<ComputerTools | null> {
  const { chromiumPath, chromiumSandbox, computerWidth, computerHeight, computerSessions } = config
  if (chromiumPath === null) return null
  await demandExecutable(chromiumPath)
  const driver = createPlaywrightDriver({
    executablePath: chromiumPath,
    sandbox: chromiumSandbox,
    size: { width: computerWidth, height: computerHeight },
    rules: destinationsOf({ allowPrivate: config.allowPrivateWebFetch }),
  })
  return createComputerTools(driver, { maximum: computerSessions, idleMs: config.computerIdleMs })
}

/** @throws {Error} */
async function demandExecutable(chromiumPath: string): Promise<void> {
  const problem = await access(chromiumPath, constants.X_OK).then(
    async () => ((await stat(chromiumPath)).isFile() ? null : 'it is none'),
    (error: unknown) => (error as Error).message,
  )
  if (problem !== null)
    throw new Error(
      `TURNMILL_CHROMIUM_PATH is ${JSON.stringify(chromiumPath)}, expected a file that can be executed: ${problem}`,
    )
}
