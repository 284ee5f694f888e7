/**
 * SQL for the first ID that a moment can have. IDs are UUIDv7: 48 bits of milliseconds come first, so that the primary key
 * of a table finds what is older or newer than a moment. Their clock is that of the process which made them.
 *
 * @param moment SQL of a timestamp.
 * Source: RFC 9562, section 5.7.
 */
export const firstId = (moment: string): string =>
  `(lpad(to_hex(greatest(0, floor(extract(epoch from ${moment}) * 1000))::bigint), 12, '0') || '70008000000000000000')::uuid`
