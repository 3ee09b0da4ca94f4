// When to look again before the time is up: the network has come back, the page is seen again, the machine was asleep.

/** How late a timer must be for the machine to have been asleep. */
const ASLEEP_MS = 10_000;
const LOOK_MS = 5_000;

interface Listens {
  addEventListener(type: string, listener: () => void): void;
  removeEventListener(type: string, listener: () => void): void;
}

/** Calls `wake` at such times; answers how to stop. Where there are no such events, as in Node, it is never called. */
export function onWake(wake: () => void): () => void {
  const global = globalThis as {
    addEventListener?: unknown;
    document?: Listens & { visibilityState: string };
    navigator?: { connection?: Partial<Listens> };
  };
  const stops: (() => void)[] = [];
  const listen = (target: Partial<Listens> | undefined, type: string, listener: () => void) => {
    if (!target?.addEventListener) return;
    target.addEventListener(type, listener);
    stops.push(() => target.removeEventListener?.(type, listener));
  };
  listen(global as Partial<Listens>, 'online', wake);
  listen(global.navigator?.connection, 'change', wake);
  listen(global.document, 'visibilitychange', () => {
    if (global.document?.visibilityState === 'visible') wake();
  });
  if (stops.length > 0) {
    let expected = Date.now() + LOOK_MS;
    const timer = setInterval(() => {
      if (Date.now() - expected > ASLEEP_MS) wake();
      expected = Date.now() + LOOK_MS;
    }, LOOK_MS);
    stops.push(() => {
      clearInterval(timer);
    });
  }
  return () => {
    for (const stop of stops) stop();
  };
}
