import { v7 } from 'uuid'

/** A time-ordered UUID (version 7), in its 36-character form. Source: RFC 9562. */
export const newId = (): string => v7()

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** Whether a value from outside is a UUID in its 36-character form, of any version. */
export const isUuid = (value: unknown): value is string => typeof value === 'string' && UUID.test(value)
