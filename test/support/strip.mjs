import { createHash } from 'node:crypto'
import { stripTypeScriptTypes } from 'node:module'

/**
 * Jest's transformer: blanks the types out of a TypeScript file, so that every line and column stays where it was.
 * Source: https://nodejs.org/api/module.html#modulestriptypescripttypescode-options
 */
export default {
  canInstrument: false,

  getCacheKey(source, path) {
    return createHash('sha256').update(process.version).update(path).update(source).digest('hex')
  },

  process(source) {
    return { code: stripTypeScriptTypes(source) }
  },
}
