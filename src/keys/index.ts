export {
  authenticate,
  demandScope,
  findKeyIn,
  findUsableKeys,
  rememberKeys,
  type FindKey,
  type Principal,
} from './authenticate.ts'
export {
  keepIdempotentAnswer,
  pruneIdempotencyKeys,
  reserveIdempotencyKey,
  type KeptAnswer,
  type KeyedRequest,
} from './idempotency.ts'
export {
  createApiKey,
  ensureBootstrapKey,
  listApiKeys,
  newToken,
  revokeApiKey,
  type ApiKeyView,
  type NewApiKey,
} from './manage.ts'
export { DEFAULT_SCOPES, SCOPES, type Scope } from './scopes.ts'
export {
  createUser,
  deleteUser,
  listUsers,
  readUser,
  updateUser,
  type NewUser,
  type UserChange,
  type UserView,
} from './users.ts'
