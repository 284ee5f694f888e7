import {
  isUniqueViolation,
  joinTransaction,
  statement,
  type Database,
  type Transaction,
} from '../db/index.ts'
import { TurnmillError } from '../protocol/errors.ts'
import { newId } from '../protocol/ids.ts'

/**
 * Who owns keys.
 *
 * U1 one active admin is there at least: the last one is neither made a member, nor suspended, nor deleted.
 * U2 no key of a member holds the scope `admin`: it is taken away with the role, and does not come back with it.
 */
export interface UserView {
  id: string
  name: string
  email: string | null
  role: string
  status: string
  createdAt: string
}

export interface NewUser {
  name: string
  email: string | null
  role: 'admin' | 'member'
}

/** What is left out stays. */
export type UserChange = Partial<NewUser & { status: 'active' | 'suspended' }>

/** As many as a list holds. */
const MAX_LISTED = 1000

/** The user and every active admin, until the transaction ends. $1 user. */
const lockUsers = statement(
  'users/lock',
  `select id, role, status from users where (id = $1 and status <> 'deleted') or (role = 'admin' and status = 'active')
  order by id for no key update`,
)

/** $1 user. */
const takeAdminScope = statement(
  'users/take-admin-scope',
  `update api_keys set scopes = array_remove(scopes, 'admin') where user_id = $1 and 'admin' = any(scopes)`,
)

/** $1 user. What is written of chats and calls stays, under the ID. */
const retireUser = statement(
  'users/retire',
  `with keys as (update api_keys set revoked_at = clock_timestamp() where user_id = $1 and revoked_at is null),
    credentials as (delete from user_provider_keys where user_id = $1),
    headers as (delete from mcp_user_headers where user_id = $1),
    overrides as (delete from model_overrides where user_id = $1)
  update users set status = 'deleted', email = null where id = $1`,
)

interface LockedUser {
  id: string
  role: string
  status: string
}

interface UserRow extends Omit<UserView, 'createdAt'> {
  createdAt: Date
}

const toUserView = ({ id, name, email, role, status, createdAt }: UserRow): UserView => ({
  id,
  name,
  email,
  role,
  status,
  createdAt: createdAt.toISOString(),
})

/** @throws {TurnmillError} `conflict` where the email is taken. */
export const createUser = async ({ prisma }: Database, user: NewUser): Promise<UserView> =>
  toUserView(await refusingTaken(user.email, () => prisma.user.create({ data: { id: newId(), ...user } })))

async function refusingTaken<T>(email: string | null | undefined, write: () => Promise<T>): Promise<T> {
  try {
    return await write()
  } catch (error) {
    if (isUniqueViolation(error))
      throw new TurnmillError('conflict', `a user with the email ${email ?? ''} exists already`)
    throw error
  }
}

/** The newest first; those that were deleted are not there. */
export async function listUsers({ prisma }: Database): Promise<UserView[]> {
  const where = { status: { not: 'deleted' } }
  return (await prisma.user.findMany({ where, orderBy: { id: 'desc' }, take: MAX_LISTED })).map(toUserView)
}

/** @throws {TurnmillError} `not_found`. */
export async function readUser({ prisma }: Database, id: string): Promise<UserView> {
  const row = await prisma.user.findUnique({ where: { id, status: { not: 'deleted' } } })
  if (row === null) throw missingUser(id)
  return toUserView(row)
}

export const missingUser = (id: string): TurnmillError =>
  new TurnmillError('not_found', `user ${id} does not exist`)

/** @throws {TurnmillError} `not_found`, `conflict` where the email is taken or no active admin would be left. */
export const updateUser = (db: Database, id: string, change: UserChange): Promise<UserView> =>
  refusingTaken(change.email, () =>
    joinTransaction(db, async ({ prisma }, tx) => {
      const before = await lockUser(tx, id, change)
      const row = await prisma.user.update({ where: { id }, data: change })
      if (row.role !== before.role) await tx.query(takeAdminScope(id))
      return toUserView(row)
    }),
  )

/**
 * Its keys are revoked, and what it had stored of credentials, headers and overrides goes; its turns make no further call.
 *
 * @throws {TurnmillError} `not_found`, `conflict` where no active admin would be left.
 */
export const deleteUser = (db: Database, id: string): Promise<void> =>
  joinTransaction(db, async (_, tx) => {
    await lockUser(tx, id, { status: 'deleted' })
    await tx.query(retireUser(id))
  })

/** The user as it was. @param change what is about to become of it (U1). */
async function lockUser(
  tx: Transaction,
  id: string,
  change: Partial<Pick<LockedUser, 'role' | 'status'>>,
): Promise<LockedUser> {
  const rows = await tx.query<LockedUser>(lockUsers(id))
  const before = rows.find((row) => row.id === id)
  if (before === undefined) throw missingUser(id)
  const after = rows.map((row) => (row.id === id ? { ...row, ...change } : row))
  if (isActiveAdmin(before) && !after.some(isActiveAdmin))
    throw new TurnmillError(
      'conflict',
      `user ${id} is the last active admin; make another user an admin first, by PATCH /v1/users/{id} with {"role": "admin"}`,
    )
  return before
}

const isActiveAdmin = ({ role, status }: LockedUser): boolean => role === 'admin' && status === 'active'
