export { alone } from './alone.ts'
export { openDatabase, query, type Database, type DatabaseOptions } from './client.ts'
export {
  errorCode,
  isForeignKeyViolation,
  isUniqueViolation,
  isUnreachable,
  toDatabaseError,
  toStartError,
} from './errors.ts'
export { statement, type Statement } from './statement.ts'
export { batch, joinTransaction, withTransaction, type Transaction } from './transaction.ts'
