export { BULL_BOARD_PATH, bullBoard } from './bull-board.ts'
