import js from '@eslint/js'
import tseslint from 'typescript-eslint'

const ENVIRONMENT_RULE = {
  'no-restricted-properties': [
    'error',
    { object: 'process', property: 'env', message: 'Only src/config reads the environment.' },
  ],
  'no-restricted-imports': [
    'error',
    {
      paths: ['node:process', 'process'].map((name) => ({
        name,
        importNames: ['env', 'default'],
        message: 'Only src/config reads the environment; use the global `process` for the rest.',
      })),
    },
  ],
}

/** What strictTypeChecked says beyond what this project wants, and what the project wants beyond it. */
const PROJECT_RULES = {
  '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'separate-type-imports' }],
  '@typescript-eslint/dot-notation': ['error', { allowIndexSignaturePropertyAccess: true }],
  '@typescript-eslint/max-params': ['error', { max: 4 }],
  '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
  '@typescript-eslint/no-explicit-any': 'error',
  '@typescript-eslint/no-floating-promises': 'error',
  '@typescript-eslint/no-import-type-side-effects': 'error',
  '@typescript-eslint/no-invalid-void-type': 'off', // `void | Promise<void>` is what a callback may answer.
  '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: { attributes: false } }],
  '@typescript-eslint/no-unused-vars': [
    'error',
    { args: 'after-used', argsIgnorePattern: '^_', caughtErrorsIgnorePattern: '^_', varsIgnorePattern: '^_' },
  ],
  '@typescript-eslint/only-throw-error': 'error',
  '@typescript-eslint/require-await': 'off', // A contract may be async where one implementation has nothing to wait for.
  '@typescript-eslint/restrict-template-expressions': ['error', { allowBoolean: true, allowNumber: true }],
  '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
  '@typescript-eslint/unified-signatures': 'off', // Overloads say more than a union of all parameters.
  '@typescript-eslint/unbound-method': 'off', // Effects are closures, handed over one by one.
  eqeqeq: 'error',
  'no-console': 'error',
  'no-control-regex': 'off', // NUL and its like are what the border looks for.
  'object-shorthand': 'error',
  'prefer-template': 'error',
}

/** Tests reach into answers whose shape they are about to assert. */
const TEST_RULES = {
  '@typescript-eslint/no-non-null-assertion': 'off',
  '@typescript-eslint/no-unsafe-assignment': 'off', // expect.any() and expect.objectContaining() are typed any.
}

export default tseslint.config(
  { ignores: ['coverage/', 'dist/', 'node_modules/', '**/node_modules/', 'src/db/generated/', '.turnmill/'] },
  js.configs.recommended,
  tseslint.configs.strictTypeChecked,
  tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: { ...PROJECT_RULES, ...ENVIRONMENT_RULE },
  },
  {
    files: ['src/config/**', 'prisma.config.ts', 'test/**', 'scripts/**', 'bench/**'],
    rules: { 'no-restricted-properties': 'off', 'no-restricted-imports': 'off' },
  },
  { files: ['test/**'], rules: TEST_RULES },
  { files: ['scripts/**', 'bench/**', 'workers/**', 'src/main.ts'], rules: { 'no-console': 'off' } },
  // The peers that bench/ measures are installed by its own package.json, so their types may be absent here.
  { files: ['**/*.js', '**/*.mjs', '**/*.cjs', 'bench/**'], extends: [tseslint.configs.disableTypeChecked] },
  {
    files: ['**/*.js', '**/*.mjs', '**/*.cjs', 'bench/**'],
    languageOptions: {
      globals: Object.fromEntries(
        ['console', 'process', 'performance', 'URL', 'fetch', 'setTimeout', 'clearTimeout', 'Buffer'].map(
          (name) => [name, 'readonly'],
        ),
      ),
    },
  },
  { files: ['**/*.cjs'], languageOptions: { sourceType: 'commonjs', globals: { module: 'writable' } } },
)
