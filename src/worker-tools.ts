import { createProviderFetch } from './models/index.ts'
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

/** The tools of a worker's turns. `close` ends the sessions with MCP servers. */
export interface WorkerTools {
  source: ToolSource
  close(): Promise<void>
}

/**
 * The built-in tools, those of the tools module, those that are registered here, and those of MCP servers.
 *
 * @param registered the tools of whoever makes the worker.
 * @throws {Error} where the module cannot be loaded, or two tools have the same name.
 */
export async function openWorkerTools(
  services: Pick<Services, 'config' | 'db' | 'encryption' | 'logger' | 'providerFetch'>,
  registered: readonly Tool[] = [],
): Promise<WorkerTools> {
  const { config, db, encryption, logger, providerFetch } = services
  // Not where providers may be: an admin chose those, and a page may have chosen this.
  const fetch = createProviderFetch({ allowPrivate: config.allowPrivateWebFetch })
  const builtin = createBuiltinTools({ fetch, now: Date.now, names: config.builtinTools })
  const loaded = config.toolsModule === null ? [] : await loadToolModule(config.toolsModule)
  const servers = createMcpServerLoader({ db, encryption, logger })
  const mcp = createMcpTools({ servers, fetch: providerFetch, logger })
  const source = createToolSource({
    tools: [...builtin, ...loaded, ...registered],
    mcp,
    timeoutMs: config.toolTimeoutMs,
    logger,
  })
  return { source, close: () => mcp.close() }
}
