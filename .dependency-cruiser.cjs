/** Which folders of src/ a folder may import besides itself; `telemetry` is open to all but `protocol` and `config`. */
const LOWEST = ['protocol']
const LOW = [...LOWEST, 'db', 'keys', 'files', 'queue', 'providers', 'tools', 'streams']
const MIDDLE = [...LOW, 'chats', 'models', 'gateway']
const HIGH = [...MIDDLE, 'agent', 'auxiliary', 'reconcile']
const MAY_IMPORT = {
  protocol: [],
  telemetry: LOWEST,
  config: LOWEST, // It is read before anything else exists.
  db: LOWEST,
  keys: [...LOWEST, 'db'],
  files: [...LOWEST, 'db'],
  queue: LOWEST,
  providers: LOWEST,
  computer: [...LOWEST, 'tools'],
  tools: [...LOWEST, 'db'], // The servers of tools that admins configure.
  streams: [...LOWEST, 'db'], // The part log on Postgres.
  chats: LOW,
  models: LOW,
  gateway: [...LOW, 'models'],
  agent: MIDDLE.filter((folder) => folder !== 'db' && folder !== 'queue'), // Its effects are parameters.
  auxiliary: [...MIDDLE, 'agent'].filter((folder) => folder !== 'queue'), // Asks a model as turns do.
  reconcile: [...MIDDLE, 'auxiliary'],
  api: HIGH,
  admin: HIGH,
  development: HIGH, // What `npm start` makes up where nothing is configured.
}

/** Folders that may also read the parsed configuration; the composition files in src/ itself may as well. */
const MAY_IMPORT_CONFIG = ['api', 'admin', 'development']

/** Folders that do not log. */
const CLOSED = ['protocol', 'config']

function allowedPaths(folder) {
  const open = CLOSED.includes(folder) ? [] : ['telemetry']
  const folders = [folder, ...MAY_IMPORT[folder], ...open].map((name) => `^src/${name}/`)
  return MAY_IMPORT_CONFIG.includes(folder) ? [...folders, '^src/config/'] : folders
}

const layerRules = Object.keys(MAY_IMPORT).map((folder) => ({
  name: `layer-${folder}`,
  comment: `src/${folder} may import, of this project, only: ${allowedPaths(folder).join(' ')} (design, section 3).`,
  severity: 'error',
  from: { path: `^src/${folder}/` },
  to: { path: '^(src|workers|test|scripts|bench)/', pathNot: allowedPaths(folder) },
}))

module.exports = {
  forbidden: [
    {
      name: 'no-circular',
      comment: 'A cycle has no lowest layer.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'not-unresolvable',
      comment: 'The import leads nowhere.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'known-folder',
      comment: 'A new folder of src/ needs a line in MAY_IMPORT of .dependency-cruiser.cjs.',
      severity: 'error',
      from: { path: '^src/[^/]+/', pathNot: `^src/(${Object.keys(MAY_IMPORT).join('|')})/` },
      to: {},
    },
    {
      name: 'src-stands-alone',
      comment: 'The library knows neither the processes that run it nor the tests.',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^(workers|test|scripts|bench)/' },
    },
    {
      name: 'workers-stand-on-src',
      comment: 'What is deployed imports nothing that is only for development.',
      severity: 'error',
      from: { path: '^workers/' },
      to: { path: '^(test|scripts|bench)/' },
    },
    {
      name: 'no-development-packages',
      comment: 'A deployment installs without devDependencies.',
      severity: 'error',
      from: { path: '^(src|workers)/' },
      to: { dependencyTypes: ['npm-dev'], dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'optional-packages-on-demand',
      comment:
        'A deployment installs without optionalDependencies: import them dynamically, where they are used.',
      severity: 'error',
      from: { path: '^(src|workers)/' },
      to: { dependencyTypes: ['npm-optional'], dependencyTypesNot: ['type-only'], dynamic: false },
    },
    ...layerRules,
  ],
  options: {
    doNotFollow: { path: ['node_modules', '^src/db/generated/'] },
    exclude: { path: '^dist/' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
    },
  },
}
