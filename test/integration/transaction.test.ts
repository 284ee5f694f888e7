import {
  batch,
  joinTransaction,
  openDatabase,
  query,
  statement,
  withTransaction,
  type Database,
} from '../../src/db/index.ts'
import { createEmptyDatabase } from '../support/database.ts'

const insert = statement('test/insert', 'insert into things (id) values ($1) returning id')
const count = statement('test/count', 'select count(*)::int as count from things')
const boom = statement('test/boom', 'select 1 / $1::int as boom')

let db: Database
let drop: () => Promise<void>
beforeEach(async () => {
  const database = await createEmptyDatabase()
  drop = () => database.drop()
  db = openDatabase({
    url: database.url,
    poolSize: 2,
    connectTimeoutMs: 5000,
    silenceMs: 5000,
    applicationName: 'test',
  })
  await db.pool.query('create table things (id int primary key)')
})
afterEach(async () => {
  await db.close()
  await drop()
})

const rows = async (): Promise<number | undefined> => (await query<{ count: number }>(db, count()))[0]?.count

describe('a pipelined transaction', () => {
  test('gives the rows of each statement', async () => {
    await expect(batch(db, [insert(1), insert(2), count()])).resolves.toEqual([
      [{ id: 1 }],
      [{ id: 2 }],
      [{ count: 2 }],
    ])
  })

  test('is undone as a whole when one of its statements fails, and names that failure', async () => {
    await expect(batch(db, [insert(1), boom(0), insert(2)])).rejects.toMatchObject({ code: '22012' })
    expect(await rows()).toBe(0)
  })

  test('leaves its connection usable after a failure', async () => {
    for (let round = 0; round < 10; round++) {
      await expect(batch(db, [insert(1), insert(1)])).rejects.toMatchObject({ code: '23505' })
      expect(await rows()).toBe(0)
    }
  })

  test('is undone when the work throws', async () => {
    const work = withTransaction(db, async (tx) => {
      await tx.query(insert(1))
      throw new Error('no')
    })
    await expect(work).rejects.toThrow('no')
    expect(await rows()).toBe(0)
  })

  test('runs again after a deadlock', async () => {
    await batch(db, [insert(1), insert(2)])
    const lock = statement('test/lock', 'select id from things where id = $1 for update')
    const bothHold = Promise.withResolvers<void>()
    let holding = 0
    let runs = 0
    const cross = (first: number, second: number): Promise<void> =>
      withTransaction(db, async (tx) => {
        runs++
        await tx.query(lock(first))
        if (++holding === 2) bothHold.resolve()
        await bothHold.promise
        await tx.query(lock(second))
      })
    await Promise.all([cross(1, 2), cross(2, 1)])
    // Who runs again may be faster than who waits for a row that was let go of, which is another deadlock.
    expect(runs).toBeGreaterThanOrEqual(3)
  })

  test('outlives a connection that breaks between two statements', async () => {
    const pid = statement('test/pid', 'select pg_backend_pid() as pid')
    const work = withTransaction(db, async (tx) => {
      const [row] = await tx.query<{ pid: number }>(pid())
      await db.pool.query('select pg_terminate_backend($1)', [row?.pid])
      // The connection's end is noticed while no statement is under way.
      while ((await db.pool.query('select from pg_stat_activity where pid = $1', [row?.pid])).rowCount !== 0);
      await new Promise((resolve) => setImmediate(resolve))
      await tx.query(insert(1))
    })
    await expect(work).rejects.toMatchObject({ code: 'database_unavailable' })
    expect(await rows()).toBe(0)
  })

  test('says database_unavailable where Postgres cannot be reached', async () => {
    const nowhere = openDatabase({
      url: 'postgres://x:y@127.0.0.1:9/z',
      poolSize: 1,
      connectTimeoutMs: 1000,
      silenceMs: 1000,
      applicationName: 'test',
    })
    await expect(query(nowhere, count())).rejects.toMatchObject({
      code: 'database_unavailable',
      retryAfterMs: 1000,
    })
    await expect(batch(nowhere, [count()])).rejects.toMatchObject({ code: 'database_unavailable' })
    await nowhere.close()
  })
})

describe('a joined transaction', () => {
  const insertByPrisma = (joined: Database, id: number) =>
    joined.prisma.$executeRaw`insert into things (id) values (${id})`

  test('commits prepared statements, savepoints and Prisma together, on one connection', async () => {
    let acquired = 0
    db.pool.on('acquire', () => acquired++)
    await joinTransaction(db, async (joined, tx) => {
      await tx.query(insert(1))
      await query(joined, insert(2))
      await expect(batch(joined, [insert(3), count()])).resolves.toEqual([[{ id: 3 }], [{ count: 3 }]])
      await insertByPrisma(joined, 4)
      await joined.prisma.$transaction(async (inner) => {
        await inner.$executeRaw`insert into things (id) values (5)`
        await inner.$executeRaw`insert into things (id) values (6)`
      })
      await withTransaction(joined, async (nested) => {
        await nested.query(insert(7))
        await batch(joined, [insert(8)])
      })
      expect(acquired).toBe(1)
      expect(await rows()).toBe(0)
    })
    expect(await rows()).toBe(8)
  })

  test('is undone as a whole when the work throws, or its last statement fails', async () => {
    const undone = (end: (db: Database) => Promise<unknown>) =>
      joinTransaction(db, async (joined) => {
        await batch(joined, [insert(1)])
        await insertByPrisma(joined, 2)
        await end(joined)
      })
    await expect(undone(() => Promise.reject(new Error('no')))).rejects.toThrow('no')
    await expect(undone((joined) => query(joined, insert(1)))).rejects.toMatchObject({ code: '23505' })
    await expect(undone((joined) => insertByPrisma(joined, 1))).rejects.toThrow()
    expect(await rows()).toBe(0)
  })

  test('outlives what fails inside a savepoint of it', async () => {
    await joinTransaction(db, async (joined) => {
      await query(joined, insert(1))
      await expect(batch(joined, [insert(2), insert(1)])).rejects.toMatchObject({ code: '23505' })
      await expect(
        joined.prisma.$transaction(async (inner) => {
          await inner.$executeRaw`insert into things (id) values (3)`
          await inner.$executeRaw`insert into things (id) values (1)`
        }),
      ).rejects.toThrow()
      const refused = withTransaction(joined, async (nested) => {
        await nested.query(insert(4))
        throw new Error('no')
      })
      await expect(refused).rejects.toThrow('no')
      const late = withTransaction(joined, async (nested) => {
        await nested.commitWith([insert(5)])
        throw new Error('after its commit')
      })
      await expect(late).rejects.toThrow('after its commit')
      await query(joined, insert(6))
    })
    const kept = await db.pool.query<{ id: number }>('select id from things order by id')
    expect(kept.rows.map(({ id }) => id)).toEqual([1, 5, 6])
  })

  test('runs again as a whole after a deadlock inside a savepoint', async () => {
    await batch(db, [insert(1), insert(2)])
    const bothHold = Promise.withResolvers<void>()
    let holding = 0
    let runs = 0
    const lock = statement('test/lock', 'select id from things where id = $1 for update')
    const cross = (first: number, second: number): Promise<void> =>
      joinTransaction(db, async (joined) => {
        runs++
        await withTransaction(joined, async (nested) => {
          await nested.query(lock(first))
          if (++holding === 2) bothHold.resolve()
          await bothHold.promise
          await nested.query(lock(second))
        })
      })
    await Promise.all([cross(1, 2), cross(2, 1)])
    // Who runs again may be faster than who waits for a row that was let go of, which is another deadlock.
    expect(runs).toBeGreaterThanOrEqual(3)
  })

  test('refuses whoever comes after its end', async () => {
    let left: Database | undefined
    await joinTransaction(db, async (joined) => {
      left = joined
    })
    await expect(query(left!, insert(1))).rejects.toThrow('is over')
    await expect(batch(left!, [insert(1)])).rejects.toThrow('is over')
    await expect(insertByPrisma(left!, 1)).rejects.toThrow()
    expect(await rows()).toBe(0)
  })
})
