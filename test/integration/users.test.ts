/** Users over HTTP: their roles, their keys' scopes, and what is left of those who go. */
import { SCOPES, type ApiKeyView, type UserView } from '../../src/keys/index.ts'
import { newId } from '../../src/protocol/ids.ts'
import { startTurnmill, type TestUser, type Turnmill } from '../support/turnmill.ts'

let turnmill: Turnmill
beforeAll(async () => {
  turnmill = await startTurnmill({ allowByok: true })
})
afterAll(() => turnmill.stop())

const asAdmin = <T = UserView & { detail: string }>(method: string, path: string, body?: unknown) =>
  turnmill.admin.client.request<T>(method, path, body)

const change = (userId: string, body: object) => asAdmin('PATCH', `/v1/users/${userId}`, body)

const scopesOf = async ({ apiKeyId }: Pick<TestUser, 'apiKeyId'>): Promise<string[]> =>
  (await turnmill.services.db.prisma.apiKey.findUniqueOrThrow({ where: { id: apiKeyId } })).scopes

const makeKey = (by: Pick<TestUser, 'client'>, body: object) =>
  by.client.request<{ apiKey: ApiKeyView; token: string; detail: string }>('POST', '/v1/api-keys', {
    name: 'k',
    ...body,
  })

describe('a user', () => {
  test('is read and changed in part', async () => {
    const email = `${newId()}@example.com`
    const { body: made } = await asAdmin('POST', '/v1/users', { name: 'Ann', email })
    expect(await asAdmin('GET', `/v1/users/${made.id}`)).toMatchObject({ status: 200, body: made })
    expect(await change(made.id, { name: 'Anna' })).toMatchObject({
      status: 200,
      body: { ...made, name: 'Anna' },
    })
    expect(await change(made.id, { email: null })).toMatchObject({ body: { name: 'Anna', email: null } })
    expect(await asAdmin('GET', `/v1/users/${made.id}`)).toMatchObject({
      body: { name: 'Anna', email: null },
    })
  })

  test('has an email to themselves', async () => {
    const email = `${newId()}@example.com`
    await asAdmin('POST', '/v1/users', { name: 'Ann', email })
    const { body: other } = await asAdmin('POST', '/v1/users', { name: 'Bea' })
    const refused = { status: 409, body: { code: 'conflict', detail: expect.stringContaining(email) } }
    expect(await asAdmin('POST', '/v1/users', { name: 'Cem', email })).toMatchObject(refused)
    expect(await change(other.id, { email })).toMatchObject(refused)
  })

  test.each([[{ status: 'deleted' }], [{ role: 'owner' }], [{ name: '' }], [{ id: newId() }]])(
    'is not changed to %j',
    async (body) => {
      const { userId } = await turnmill.addUser()
      expect(await change(userId, body)).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    },
  )

  test('that does not exist is 404', async () => {
    const refused = { status: 404, body: { code: 'not_found' } }
    for (const [method, body] of [['GET'], ['DELETE'], ['PATCH', { name: 'n' }]] as const)
      expect(await asAdmin(method, `/v1/users/${newId()}`, body)).toMatchObject(refused)
    expect(await makeKey(turnmill.admin, { userId: newId() })).toMatchObject(refused)
  })

  test('is an admin’s business', async () => {
    const { userId, client } = await turnmill.addUser()
    for (const [method, body] of [['GET'], ['DELETE'], ['PATCH', { role: 'admin' }]] as const)
      expect(await client.request(method, `/v1/users/${userId}`, body)).toMatchObject({ status: 403 })
  })

  test('that is suspended calls nothing until they are active again', async () => {
    const user = await turnmill.addUser()
    expect(await change(user.userId, { status: 'suspended' })).toMatchObject({
      body: { status: 'suspended' },
    })
    expect(await user.client.request('GET', '/v1/me')).toMatchObject({ status: 401 })
    expect(await change(user.userId, { status: 'active' })).toMatchObject({ body: { status: 'active' } })
    expect(await user.client.request('GET', '/v1/me')).toMatchObject({ status: 200 })
  })
})

describe('a user that is deleted', () => {
  test('is gone, with their keys and credentials, and leaves their email', async () => {
    const email = `${newId()}@example.com`
    const user = await turnmill.addUser()
    await change(user.userId, { email })
    const { chat, turn } = await user.client.create('hi')
    await user.client.ended(chat.id, turn.id)
    await user.client.request('PUT', '/v1/me/provider-keys/fake', { key: 'users-own-key-0001' })
    await user.client.request('PUT', '/v1/me/model-overrides/title', {
      modelConfigId: turnmill.modelConfig.id,
    })

    expect(await asAdmin('DELETE', `/v1/users/${user.userId}`)).toMatchObject({ status: 204 })
    expect(await user.client.request('GET', '/v1/me')).toMatchObject({ status: 401 })
    const { body } = await asAdmin<{ items: UserView[] }>('GET', '/v1/users')
    expect(body.items.map(({ id }) => id)).not.toContain(user.userId)
    for (const method of ['GET', 'DELETE'])
      expect(await asAdmin(method, `/v1/users/${user.userId}`)).toMatchObject({ status: 404 })
    expect(await change(user.userId, { status: 'active' })).toMatchObject({ status: 404 })
    expect(await makeKey(turnmill.admin, { userId: user.userId })).toMatchObject({ status: 404 })
    expect(await asAdmin('POST', '/v1/users', { name: 'Bea', email })).toMatchObject({ status: 201 })

    const { prisma } = turnmill.services.db
    const where = { userId: user.userId }
    expect(await prisma.apiKey.count({ where: { ...where, revokedAt: null } })).toBe(0)
    expect(await prisma.userProviderKey.count({ where })).toBe(0)
    expect(await prisma.modelOverride.count({ where })).toBe(0)
    expect(await prisma.chat.count({ where })).toBe(1)
  })

  test('has the call of their running turn closed', async () => {
    const user = await turnmill.addUser()
    turnmill.upstream.script({ type: 'silence', after: 'headers' })
    const calls = turnmill.upstream.requests.length
    await user.client.create('hi')
    const request = await turnmill.upstream.waitForRequest(calls + 1)
    expect(await asAdmin('DELETE', `/v1/users/${user.userId}`)).toMatchObject({ status: 204 })
    await expect(request.closed).resolves.toMatchObject({ early: true })
  })
})

describe('the last active admin (U1)', () => {
  test('is neither made a member, nor suspended, nor deleted', async () => {
    const { userId, client } = turnmill.admin
    const refused = { status: 409, body: { code: 'conflict', detail: expect.stringContaining('make another user an admin first') } } // prettier-ignore
    const suspended = await turnmill.addUser([...SCOPES], 'admin')
    await change(suspended.userId, { status: 'suspended' })
    expect(await change(userId, { role: 'member' })).toMatchObject(refused)
    expect(await change(userId, { status: 'suspended' })).toMatchObject(refused)
    expect(await asAdmin('DELETE', `/v1/users/${userId}`)).toMatchObject(refused)
    expect(await change(userId, { name: 'still' })).toMatchObject({ status: 200 })
    expect(await client.request('GET', '/v1/users')).toMatchObject({ status: 200 })
  })

  test('is left where all of them leave at once', async () => {
    const others = await Promise.all([1, 2, 3].map(() => turnmill.addUser([...SCOPES], 'admin')))
    const all = [turnmill.admin, ...others]
    const answers = await Promise.all(
      all.map(({ userId, client }) =>
        client.request('PATCH', `/v1/users/${userId}`, { role: 'member' }, { 'idempotency-key': newId() }),
      ),
    )
    const { prisma } = turnmill.services.db
    const left = await prisma.user.findMany({ where: { role: 'admin', status: 'active' } })
    expect(left).toHaveLength(1)
    expect(answers.filter(({ status }) => status === 200).length).toBe(all.length - 1)
    // The tests behind this one are an admin's again.
    await prisma.user.update({ where: { id: turnmill.admin.userId }, data: { role: 'admin' } })
    await prisma.apiKey.update({ where: { id: turnmill.admin.apiKeyId }, data: { scopes: [...SCOPES] } })
  })
})

describe('the scope admin (U2)', () => {
  test('is not given to a member, by nobody', async () => {
    const member = await turnmill.addUser()
    const refused = await makeKey(turnmill.admin, { userId: member.userId, scopes: ['chats:read', 'admin'] })
    expect(refused).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
    expect(refused.body.detail).toContain(`user ${member.userId} is a member`)
    expect(refused.body.detail).toContain('make the user an admin first')
    expect(await makeKey(member, { scopes: ['admin'] })).toMatchObject({ status: 403 })
    expect(await turnmill.services.db.prisma.apiKey.count({ where: { userId: member.userId } })).toBe(1)
    await change(member.userId, { role: 'admin' })
    const given = await makeKey(turnmill.admin, { userId: member.userId, scopes: ['admin'] })
    expect(given).toMatchObject({ status: 201, body: { apiKey: { scopes: ['admin'] } } })
  })

  test('goes with the role, and does not come back with it', async () => {
    const other = await turnmill.addUser([...SCOPES], 'admin')
    expect(await other.client.request('GET', '/v1/users')).toMatchObject({ status: 200 })
    await change(other.userId, { role: 'member' })
    expect(await scopesOf(other)).toEqual(SCOPES.filter((scope) => scope !== 'admin'))
    expect(await other.client.request('GET', '/v1/users')).toMatchObject({ status: 403 })
    expect(await other.client.request('GET', '/v1/me')).toMatchObject({ body: { role: 'member' } })
    await change(other.userId, { role: 'admin' })
    expect(await other.client.request('GET', '/v1/users')).toMatchObject({ status: 403 })
  })

  test('is of no use in a key that a member has had from of old, nor when they become an admin', async () => {
    const member = await turnmill.addUser()
    const where = { id: member.apiKeyId }
    await turnmill.services.db.prisma.apiKey.update({ where, data: { scopes: [...SCOPES] } })
    expect(await member.client.request('GET', '/v1/users')).toMatchObject({ status: 403 })
    const keys = await member.client.request<{ items: ApiKeyView[] }>('GET', '/v1/api-keys')
    expect(keys.body.items.map(({ userId }) => userId)).toEqual([member.userId])
    await change(member.userId, { role: 'admin' })
    expect(await member.client.request('GET', '/v1/users')).toMatchObject({ status: 403 })
    expect(await scopesOf(member)).not.toContain('admin')
  })

  test('is not given while the role is taken away', async () => {
    const other = await turnmill.addUser([...SCOPES], 'admin')
    const makes = Array.from({ length: 5 }, () =>
      makeKey(turnmill.admin, { userId: other.userId, scopes: ['admin'] }),
    )
    await Promise.all([...makes, change(other.userId, { role: 'member' })])
    const keys = await turnmill.services.db.prisma.apiKey.findMany({ where: { userId: other.userId } })
    expect(keys.flatMap(({ scopes }) => scopes)).not.toContain('admin')
  })
})
