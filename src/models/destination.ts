import dns from 'node:dns'
import type { LookupAddress } from 'node:dns'
import type { LookupFunction } from 'node:net'
import ipaddr from 'ipaddr.js'
import { TurnmillError } from '../protocol/errors.ts'

/**
 * Where a provider may be: behind https, at a public address. Whoever may set a base URL could otherwise reach what only
 * this machine can, and be sent a credential by it. Names are judged by the addresses that the socket connects to, since
 * a name may change its answer between a check and the connection; redirects are not followed by anybody.
 *
 * D1 no request is sent to an address that is private, loopback, link-local or otherwise not public, unless allowed.
 */
export interface DestinationRules {
  allowPrivate: boolean
  /** How names are looked up; as the system does by default. */
  lookup?: LookUpAll
}

type LookUpAll = (
  hostname: string,
  options: dns.LookupAllOptions,
  callback: (error: Error | null, addresses: LookupAddress[]) => void,
) => void

/**
 * What can be said of an address without asking anybody. URL parsing has brought all notations of a number to one.
 *
 * @throws {TurnmillError} `provider_address_refused`.
 */
export function demandDestination(url: string, { allowPrivate }: DestinationRules): void {
  if (allowPrivate) return
  const { protocol, hostname } = new URL(url)
  if (protocol !== 'https:')
    throw refused(`${hostname} is reached by ${protocol.slice(0, -1)}, expected https`)
  const literal = hostname.replace(/^\[(.*)\]$/, '$1')
  if (ipaddr.isValid(literal) && !isPublic(literal)) throw refused(`${literal} is not a public address`)
}

/**
 * The same, and what its name leads to at this moment. A name that cannot be looked up may be there later.
 *
 * @throws {TurnmillError} `provider_address_refused`.
 */
export async function checkDestination(url: string, rules: DestinationRules): Promise<void> {
  demandDestination(url, rules)
  if (rules.allowPrivate) return
  const { hostname } = new URL(url)
  const { lookup = dns.lookup } = rules
  const addresses = await new Promise<LookupAddress[]>((resolve) =>
    lookup(hostname, { all: true }, (error, found) => resolve(error === null ? found : [])),
  )
  demandPublic(hostname, addresses)
}

/** The rules for who connects by other means than a fetch (D1). */
export interface Destinations {
  allowUrl(url: string): Promise<boolean>
  /** In place of the lookup of a socket; the system's where it is absent. */
  lookup?: LookupFunction
}

export const destinationsOf = (rules: DestinationRules): Destinations => ({
  allowUrl: (url) =>
    checkDestination(url, rules).then(
      () => true,
      () => false,
    ),
  // The types of Node have it that an address is there beside an error.
  ...(rules.allowPrivate ? {} : { lookup: lookUpPublic(rules) as LookupFunction }),
})

/** @throws {TurnmillError} `provider_address_refused` where one of them is not public. */
function demandPublic(hostname: string, addresses: readonly LookupAddress[]): void {
  const found = addresses.find(({ address }) => !isPublic(address))
  if (found !== undefined)
    throw refused(`${hostname} leads to ${found.address}, which is not a public address`)
}

/** Mapped IPv4 addresses count as what they map. */
const isPublic = (address: string): boolean => ipaddr.process(address).range() === 'unicast'

const refused = (what: string): TurnmillError =>
  new TurnmillError(
    'provider_address_refused',
    `${what}; set TURNMILL_ALLOW_PRIVATE_PROVIDERS where providers of your own are meant to be reached`,
  )

type LookupCallback = (error: Error | null, address?: string | LookupAddress[], family?: number) => void

/** In place of the lookup of a socket: what it gives is what is connected to. */
export const lookUpPublic =
  ({ lookup = dns.lookup }: DestinationRules) =>
  (hostname: string, options: dns.LookupOptions, callback: LookupCallback): void =>
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) {
        callback(error)
        return
      }
      try {
        demandPublic(hostname, addresses)
      } catch (refusal) {
        callback(refusal as Error)
        return
      }
      const [first] = addresses
      if (options.all === true) callback(null, addresses)
      else callback(null, first?.address, first?.family)
    })
