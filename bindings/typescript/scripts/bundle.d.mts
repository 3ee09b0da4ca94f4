export const INTERNAL: string;
export function bundle(): Promise<string>;
