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
    navigator?: { connection?: Partial<Listens> & { type?: string; effectiveType?: string } };
  };
  const stops: (() => void)[] = [];
  const listen = (target: Partial<Listens> | undefined, type: string, listener: () => void) => {
    if (!target?.addEventListener) return;
    target.addEventListener(type, listener);
    stops.push(() => target.removeEventListener?.(type, listener));
  };
  listen(global as Partial<Listens>, 'online', wake);
  const connection = global.navigator?.connection;
  // Desktops do not tell the type.
  const describeNetwork = () => connection?.type ?? connection?.effectiveType;
  let network = describeNetwork();
  listen(connection, 'change', () => {
    // Not for each new estimate of its speed.
    if (network !== (network = describeNetwork())) wake();
  });
  listen(global.document, 'visibilitychange', () => {
    if (global.document?.visibilityState === 'visible') wake();
  });
  if (stops.length > 0) {
    let expected = Date.now() + LOOK_MS;
    const timer = setInterval(() => {
      // A hidden page's timers are late because it is hidden, and it wakes up when it is seen.
      if (Date.now() - expected > ASLEEP_MS && global.document?.visibilityState !== 'hidden') wake();
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
