// When to look again before the time is up: the network has come back, the page is seen again, the machine was asleep.

/** How late a timer must be for the machine to have been asleep. */
const ASLEEP_MS = 10_000;
const LOOK_MS = 5_000;

interface Listens {
  addEventListener(type: string, listener: () => void, options: { signal: AbortSignal }): void;
}

/** Calls `wake` at such times, until `signal` aborts. Where there are no such events, as in Node, it is never called. */
export function onWake(wake: () => void, signal: AbortSignal): void {
  const global = globalThis as {
    addEventListener?: unknown;
    document?: Listens & { visibilityState: string };
    navigator?: { connection?: Partial<Listens> & { type?: string; effectiveType?: string } };
  };
  let isHeard = false;
  const listen = (target: Partial<Listens> | undefined, type: string, listener: () => void) => {
    if (!target?.addEventListener) return;
    target.addEventListener(type, listener, { signal });
    isHeard = true;
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
  if (isHeard) {
    let expected = Date.now() + LOOK_MS;
    const timer = setInterval(() => {
      // A hidden page's timers are late because it is hidden, and it wakes up when it is seen.
      if (Date.now() - expected > ASLEEP_MS && global.document?.visibilityState !== 'hidden') wake();
      expected = Date.now() + LOOK_MS;
    }, LOOK_MS);
    signal.addEventListener('abort', () => {
      clearInterval(timer);
    });
  }
}
