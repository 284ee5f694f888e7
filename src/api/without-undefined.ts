type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> }

/** A field that was not sent is not a field that was sent empty. */
export const withoutUndefined = <T extends object>(value: T): Partial<Defined<T>> =>
  Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as Partial<Defined<T>>
