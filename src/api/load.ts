import type { FastifyRequest } from 'fastify'
import { TurnmillError } from '../protocol/errors.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether the route makes a turn, and so is closed while the fleet cannot keep up. */
    makesTurn?: boolean
  }
}

export interface LoadGuardOptions {
  /** How long the oldest turn that may run waits for a worker, in ms; 0 where none does. */
  oldestWaitMs(): Promise<number>
  /** From which wait on no further turns are taken, in ms. */
  limitMs: number
  periodMs: number
  onError(error: unknown): void
}

/** Refuses new turns while the fleet cannot keep up with those it has. */
export interface LoadGuard {
  /** A hook. @throws {TurnmillError} `overloaded` on routes that make turns. */
  onRequest(request: FastifyRequest): Promise<void>
  start(): void
  stop(): void
}

export function createLoadGuard({ oldestWaitMs, limitMs, periodMs, onError }: LoadGuardOptions): LoadGuard {
  let waitMs = 0
  let timer: NodeJS.Timeout | undefined
  const look = async (): Promise<void> => {
    try {
      waitMs = await oldestWaitMs()
    } catch (error) {
      onError(error)
    }
  }
  return {
    onRequest: async ({ routeOptions }) => {
      if (routeOptions.config.makesTurn !== true || waitMs < limitMs) return
      const message = `the oldest turn has waited ${Math.round(waitMs / 1000)} s for a worker, expected less than ${limitMs / 1000} s`
      throw new TurnmillError('overloaded', message, { retryAfterMs: RETRY_AFTER_MS })
    },
    start: () => {
      timer ??= setInterval(() => void look(), periodMs).unref()
    },
    stop: () => {
      clearInterval(timer)
      timer = undefined
    },
  }
}

const RETRY_AFTER_MS = 10_000
