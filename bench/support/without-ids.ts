/** The text with its ids left out, so that the same complaint counts as the same. */
export const withoutIds = (text: string): string =>
  text.replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}/g, '<id>').slice(0, 300)
