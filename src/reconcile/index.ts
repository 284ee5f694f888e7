export { createReconciler, type Reconciler, type ReconcilerOptions, type Repaired } from './reconciler.ts'
