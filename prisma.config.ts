import { fileURLToPath } from 'node:url'
import { defineConfig } from 'prisma/config'

// `generate` needs no schema engine but downloads one unless this names a file that exists, and an install must work offline.
if (process.argv.includes('generate')) {
  process.env.PRISMA_SCHEMA_ENGINE_BINARY ??= fileURLToPath(new URL('package.json', import.meta.url))
}

export default defineConfig({ schema: 'prisma/schema.prisma', migrations: { path: 'prisma/migrations' } })
