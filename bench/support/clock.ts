/**
 * The machine's monotonic clock, in ms since its start or so. `process.hrtime` reads the same clock in every process of
 * one machine, so that times of the bench and of its provider can be subtracted from each other; nobody who sets the
 * wall clock moves it.
 */
export const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6
