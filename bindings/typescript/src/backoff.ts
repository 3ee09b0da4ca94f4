/**
 * The pause before each attempt to reconnect: it doubles from `firstMs` to `maxMs`, and each is between half of that and all of
 * it, so that the clients of a server that restarts do not all come back at once.
 */
export interface Backoff {
  /** Before the first attempt after a loss. Default 100. */
  firstMs: number;
  /** The longest. Default 30 000. */
  maxMs: number;
  /** A connection that lived so long starts it anew. Default 5 000. */
  stableMs: number;
}

export const BACKOFF: Backoff = { firstMs: 100, maxMs: 30_000, stableMs: 5_000 };

/** As `setTimeout`, which ends at once where the time is longer than its 25 days, such as `Infinity`. */
export const later = (call: () => void, ms: number): ReturnType<typeof setTimeout> => setTimeout(call, Math.min(ms, 2 ** 31 - 1));

/** Answers `false` at last. */
export const sleep = (ms: number): Promise<false> => new Promise((resolve) => setTimeout(resolve, ms, false));

/** After `failures` attempts that failed. `random` is evenly distributed from 0 to 1. */
export function pause(backoff: Backoff, failures: number, random: number): number {
  const whole = Math.min(backoff.firstMs * 2 ** Math.min(failures, 30), backoff.maxMs);
  return whole / 2 + (whole / 2) * random;
}
