/** The provider SDKs read these by themselves, so a worker must not have them. Returns what it removed. */
export function dropAmbientCredentials(environment: NodeJS.ProcessEnv = process.env): string[] {
  const names = Object.keys(environment).filter((name) => /^(OPENAI|ANTHROPIC)_/.test(name))
  for (const name of names) Reflect.deleteProperty(environment, name)
  return names
}
