/** Device ids have 24 bits. */
export const DEVICE_ID_LIMIT: number = 2 ** 24;
