export function checkMetadata(_d: unknown, _r: (f: {message: string}) => void): void {}
