import { WireloomError } from './errors.js';

/** Where sessions and what is known of transports are kept. `localStorage` and `sessionStorage` are such. */
export interface ClientStorage {
  getItem(key: string): string | null | Promise<string | null>;
  setItem(key: string, value: string): unknown;
  removeItem(key: string): unknown;
}

/** What the server knows a client by, over connections of all transports. */
export interface Session {
  /** The secret that restores it. */
  key: string;
  created: Date;
  /** The last time that it was restored. */
  lastUsed: Date;
  /** What the server has put into it. */
  info: Record<string, unknown>;
}

/**
 * Section 9.2.
 *
 * @throws WireloomError of kind `internal` for what is no session.
 */
export function parseSession(json: string): Session {
  try {
    const { k, c, l, i } = JSON.parse(json) as { k: unknown; c: string; l: string; i?: Record<string, unknown> };
    if (typeof k === 'string' && k !== '') return { key: k, created: new Date(c), lastUsed: new Date(l), info: i ?? {} };
  } catch {
    // As below.
  }
  throw new WireloomError('internal', 'the server sent a session that is none');
}

/** The client's entries in a storage. One that fails (a full or forbidden `localStorage`) is as good as none. */
export class Memory {
  #storage: ClientStorage | undefined;
  #suffix: string;

  constructor(storage: ClientStorage | undefined, url: string) {
    this.#storage = storage;
    this.#suffix = url;
  }

  async get(name: string): Promise<string | null> {
    try {
      return (await this.#storage?.getItem(`wireloom:${name}:${this.#suffix}`)) ?? null;
    } catch {
      return null;
    }
  }

  /** The stored session; `null` also for one of another version. */
  async session(): Promise<Session | null> {
    try {
      return parseSession((await this.get('session')) ?? '');
    } catch {
      return null;
    }
  }

  /** `null` removes it. */
  async setSession(session: Session | null): Promise<void> {
    const { key: k, created: c, lastUsed: l, info: i } = session ?? ({} as Partial<Session>);
    await this.set('session', session && JSON.stringify({ k, c, l, i }));
  }

  /** `null` removes it. */
  async set(name: string, value: string | null): Promise<void> {
    const key = `wireloom:${name}:${this.#suffix}`;
    try {
      await (value === null ? this.#storage?.removeItem(key) : this.#storage?.setItem(key, value));
    } catch {
      // Then the next page begins without it.
    }
  }
}
