-- Why: what a call has spent is added to its turn once, also where the write was carried out and its answer lost

-- AlterTable
ALTER TABLE "turns" ADD COLUMN     "spent_ids" UUID[] DEFAULT ARRAY[]::UUID[];
