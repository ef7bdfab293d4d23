/** usage: make-pool.mjs FOLDER VOLUME BLOCKS: a pool with a volume of so many mapped blocks. */
import { makeLargePool } from '../lib/large-pool.mjs';

const [folder = '', volume = '', blocks] = process.argv.slice(2);
await makeLargePool(folder, volume, Number(blocks));
