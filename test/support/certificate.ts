import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { generate } from 'selfsigned'

/** A key and its certificate for 127.0.0.1, in PEM. */
export interface Certified {
  key: string
  cert: string
}

/** Makes a certificate that connections of this process take for good from now on. */
export async function trustedCertificate(): Promise<Certified> {
  const { private: key, cert } = await generate([{ name: 'commonName', value: '127.0.0.1' }], {
    keyType: 'ec',
    extensions: [
      { name: 'basicConstraints', cA: true },
      { name: 'subjectAltName', altNames: [{ type: 7, ip: '127.0.0.1' }] },
    ],
  })
  setDefaultCACertificates([...getCACertificates('default'), cert])
  return { key, cert }
}
