import type { ApiServer } from './context.ts'

export interface ScopeOptions {
  /** Without one, Fastify searches all loaded modules for it. */
  name: string
  /** Of all its paths, such as `/v1/gateway`. */
  prefix?: string
}

/**
 * Registers routes with parsers and error handlers of their own.
 *
 * Source: https://fastify.dev/docs/latest/Reference/Server/#pluginname
 */
export function registerScope(
  app: ApiServer,
  { name, prefix = '' }: ScopeOptions,
  plugin: (scope: ApiServer) => Promise<void>,
): void {
  void app.register(Object.assign(plugin, { [Symbol.for('fastify.display-name')]: name }), { prefix })
}
