import type { Stage } from './contender.ts'
import { UsageError, type OptionValues } from './options.ts'

export type Backend = Stage['backend']

/** What `--backend` names. @throws {UsageError} */
export function chooseBackends({ backend = '' }: OptionValues): Backend[] {
  if (backend === 'both') return ['redis', 'postgres']
  if (backend === 'redis' || backend === 'postgres') return [backend]
  throw new UsageError(`--backend is ${backend}, expected redis, postgres or both`)
}
