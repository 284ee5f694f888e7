/** What an API key may do. An admin's key needs `admin` for the routes of the deployment. */
export const SCOPES = ['chats:read', 'chats:write', 'gateway:use', 'admin'] as const
export type Scope = (typeof SCOPES)[number]

/** What a key gets where nothing is said. */
export const DEFAULT_SCOPES: readonly Scope[] = ['chats:read', 'chats:write', 'gateway:use']
