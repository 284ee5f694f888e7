import { createHash } from 'node:crypto'
import { PrismaPg } from '@prisma/adapter-pg'
import type pg from 'pg'
import { PrismaClient } from './generated/client.ts'

/** Prisma over a pool that somebody else opens and closes; its statements are prepared once per connection. */
export const createPrisma = (pool: pg.Pool): PrismaClient =>
  new PrismaClient({ adapter: new PrismaPg(pool, { statementNameGenerator: statementName }) })

const statementName = ({ sql }: { sql: string }): string =>
  `prisma-${createHash('sha1').update(sql).digest('base64url')}`
