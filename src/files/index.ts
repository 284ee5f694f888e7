export { storeContent, type ContentPart } from './content.ts'
export { loadImages } from './load.ts'
export {
  createFile,
  deleteFile,
  MAX_FILE_BYTES,
  pruneFiles,
  readFile,
  storeImages,
  type FileOwner,
  type FileView,
  type ImageBytes,
} from './store.ts'
