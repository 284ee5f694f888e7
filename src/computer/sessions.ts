import { ComputerFailure, type ComputerDriver, type ComputerSession } from './driver.ts'
import { untilAborted } from './waiting.ts'

export interface SessionsOptions {
  /** Displays that are open at once at most. */
  maximum: number
  /** How long a display stays open that nobody uses, in ms. */
  idleMs: number
}

/** A use of a chat's display. */
export interface DisplayUse {
  session: ComputerSession
  /** Whether it was opened for this use, so that it shows nothing yet. */
  fresh: boolean
}

/**
 * The displays of a process, one per chat.
 *
 * S1 no two uses of a display overlap; they take turns in the order they were asked for.
 * S2 a display closes when a use of it was aborted or lost it, when it was idle, when another chat needs its place, and at
 *    the end of the process.
 */
export interface Sessions {
  /**
   * Gives `work` the chat's display, opening one where there is none.
   *
   * @throws {ComputerFailure} where none can be had. What the signal was aborted with, as soon as it is.
   */
  use<T>(chatId: string, signal: AbortSignal, work: (use: DisplayUse) => Promise<T>): Promise<T>
  /** Closes a chat's display, if there is one. */
  release(chatId: string): Promise<void>
  /** Closes all, and the driver. */
  stop(): Promise<void>
}

interface Place {
  session: ComputerSession | null
  /** Uses that are under way or wait for their turn. */
  uses: number
  /** Resolves when the last of them has ended. */
  free: Promise<void>
  idle?: NodeJS.Timeout
}

export function createSessions(driver: ComputerDriver, { maximum, idleMs }: SessionsOptions): Sessions {
  /** Those used longest ago come first. */
  const places = new Map<string, Place>()
  const closing = new Set<Promise<void>>()

  function close(session: ComputerSession): Promise<void> {
    const closed = session.close().finally(() => closing.delete(closed))
    closing.add(closed)
    return closed
  }

  async function vacate(chatId: string, place: Place): Promise<void> {
    clearTimeout(place.idle)
    if (place.uses === 0 && places.get(chatId) === place) places.delete(chatId)
    const { session } = place
    place.session = null
    if (session !== null) await close(session)
  }

  function placeOf(chatId: string): Place {
    const place = places.get(chatId) ?? makePlace()
    // Moves it to the end.
    places.delete(chatId)
    places.set(chatId, place)
    clearTimeout(place.idle)
    return place
  }

  function makePlace(): Place {
    if (places.size >= maximum) {
      const unused = [...places].find(([, { uses }]) => uses === 0)
      if (unused === undefined)
        throw new ComputerFailure(`all ${maximum} displays of this worker are in use; try again later`)
      void vacate(...unused)
    }
    return { session: null, uses: 0, free: Promise.resolve() }
  }

  function rest(chatId: string, place: Place): void {
    if (place.session === null) void vacate(chatId, place)
    else place.idle = setTimeout(() => void vacate(chatId, place), idleMs).unref()
  }

  async function display(place: Place, chatId: string, signal: AbortSignal): Promise<DisplayUse> {
    const { session } = place
    if (session !== null) {
      if (await untilAborted(session.isAlive(), signal)) return { session, fresh: false }
      if (place.session === session) place.session = null
      void close(session)
    }
    const opening = driver.open({ chatId })
    try {
      place.session = await untilAborted(opening, signal)
      return { session: place.session, fresh: true }
    } catch (error) {
      opening.then(close, () => undefined)
      throw error
    }
  }

  async function run<T>(
    place: Place,
    { chatId, signal, work }: { chatId: string; signal: AbortSignal; work: (use: DisplayUse) => Promise<T> },
  ): Promise<T> {
    const use = await display(place, chatId, signal)
    try {
      return await untilAborted(work(use), signal)
    } catch (error) {
      if (signal.aborted || (error instanceof ComputerFailure && error.lost)) {
        if (place.session === use.session) place.session = null
        void close(use.session)
      }
      throw error
    }
  }

  return {
    use: async (chatId, signal, work) => {
      const place = placeOf(chatId)
      const { promise: ended, resolve: end } = Promise.withResolvers<undefined>()
      const before = place.free
      place.free = before.then(() => ended)
      place.uses += 1
      try {
        await untilAborted(before, signal)
        return await run(place, { chatId, signal, work })
      } finally {
        end(undefined)
        place.uses -= 1
        if (place.uses === 0) rest(chatId, place)
      }
    },
    release: async (chatId) => {
      const place = places.get(chatId)
      if (place !== undefined) await vacate(chatId, place)
    },
    stop: async () => {
      await Promise.all([...places].map(([chatId, place]) => vacate(chatId, place)))
      await Promise.all(closing)
      await driver.stop()
    },
  }
}
