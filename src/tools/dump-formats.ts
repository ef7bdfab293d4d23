export const DUMP_FORMATS = ['xml', 'human_readable', 'json'] as const;
export type DumpFormat = (typeof DUMP_FORMATS)[number];
