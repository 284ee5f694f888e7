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
 * @throws {Error} where a module cannot be loaded, or two tools have one name.
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
  const computers = openComputers(config)
  return {
    source,
    computers,
    close: async () => {
      await Promise.all([mcp.close(), computers?.stop()])
    },
  }
}

function openComputers(config: Config): ComputerTools | null {
  const { chromiumPath, chromiumSandbox, computerWidth, computerHeight, computerSessions } = config
  if (chromiumPath === null) return null
  const driver = createPlaywrightDriver({
    executablePath: chromiumPath,
    sandbox: chromiumSandbox,
    size: { width: computerWidth, height: computerHeight },
    rules: destinationsOf({ allowPrivate: config.allowPrivateWebFetch }),
  })
  return createComputerTools(driver, { maximum: computerSessions, idleMs: config.computerIdleMs })
}
