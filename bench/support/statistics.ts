/** The value that a share of all is not above: 0.5 is the median. `NaN` of nothing. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN
}

export const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)
