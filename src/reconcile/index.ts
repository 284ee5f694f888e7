export { createReconciler, type Reconciler, type ReconcilerOptions } from './reconciler.ts'
