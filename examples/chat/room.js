// What is said in the rooms, and how none of it is lost or said twice.
//
// A message waits in the outbox, in localStorage, until it is seen in its room: over reloads, sleep and restarts. It is sent when
// everything that the room has is here, so that one whose answer was lost is known to have arrived; and it has a key, so that the
// server publishes once what is sent twice because it was still under way.
//
// Keys are forgotten within minutes, and a page may be closed for days. So an entry of the outbox knows where its room was before it was
// first sent: a page that comes back begins there, and finds it or sends it. Where the room has forgotten what came since, nobody can
// know whether the message was among that: who wrote it decides.
//
// What waits is sent as the user who wrote it, or when somebody else in this browser asks for it. Who leaves takes it along.
import { Client } from "/wireloom.min.js";

const HISTORY = 200;
const DEFAULT_ROOMS = ["lobby", "weaving", "random"];
/** More of a room is not shown: what is older goes. */
const SHOWN = 2000;

/** As the server has it. */
export const isRoom = (name) => /^[a-z0-9-]{1,24}$/.test(name);
/** What a client says of itself, whatever that is. */
const isPerson = (info) => isShort(info?.name) && isShort(info?.user);
const isShort = (text) => typeof text === "string" && text !== "" && text.length <= 48;

/** Ids are of their user, who makes them: what another says with one is another message. */
export const keyOf = ({ user, id }) => `${user}/${id}`;

class Room {
  isLive = false;
  unread = 0;
  people = new Map();
  /** By key, in the order of the offsets. */
  messages = new Map();
  /** The server has them, and they have not come yet. */
  accepted = new Map();
  /** Nothing that came after this position is missing. */
  from = null;

  constructor(name, user) {
    this.name = name;
    this.user = user;
  }

  /** What was said, and what waits to be. */
  *all() {
    yield* this.messages.values();
    for (const message of [...this.accepted.values(), ...outbox.of(this.name)]) {
      if (!this.messages.has(keyOf(message))) yield { ...message, isDoubtful: this.isDoubtful(message) };
    }
  }

  /** Whether another user wrote it, or it was sent and may have come before what is here. */
  isDoubtful({ user, after }) {
    return user !== this.user || Boolean(after && this.from) && (after.epoch !== this.from.epoch || after.offset < this.from.offset);
  }

  /** Where to begin so that nothing is in doubt that need not be, and some of what was said before is there to be read. */
  since() {
    const sent = outbox.of(this.name).map(({ after }) => after).filter(Boolean);
    if (sent.length === 0) return null;
    const { epoch } = sent.at(-1);
    const first = Math.min(...sent.filter((after) => after.epoch === epoch).map(({ offset }) => offset));
    return { epoch, offset: Math.max(0, first - HISTORY) };
  }
}

/** What waits, over reloads. All tabs have the same: an entry is added and removed by itself. */
const outbox = {
  prefix: "chat:out:",
  all() {
    const found = [];
    for (let n = 0; n < localStorage.length; n++) {
      const key = localStorage.key(n);
      if (key.startsWith(this.prefix)) found.push(JSON.parse(localStorage.getItem(key)));
    }
    // Ids grow with time.
    return found.sort((one, other) => (one.id < other.id ? -1 : 1));
  },
  of: (room) => outbox.all().filter((message) => message.room === room),
  get: (id) => JSON.parse(localStorage.getItem(outbox.prefix + id)),
  add: (message) => localStorage.setItem(outbox.prefix + message.id, JSON.stringify(message)),
  remove: (id) => localStorage.removeItem(outbox.prefix + id),
};

export class Chat {
  onMessages = () => {};
  onRooms = () => {};
  onPeople = () => {};
  onTyping = () => {};
  onState = () => {};
  rooms = new Map();
  /** Of the session: names may be the same. */
  user = null;
  #name = null;
  #client;
  #subscriptions = new Map();
  #current = null;
  #sending = new Set();
  #leaving = new AbortController();
  #lastId = 0;

  constructor() {
    // Where the server listens for WebTransport, and its certificate of the day.
    const connect = () => fetch("/connect", { cache: "no-store" }).then((response) => response.json());
    this.#client = connect().then(({ port }) => {
      const host = location.hostname === "localhost" ? "127.0.0.1" : location.hostname;
      const client = new Client(`https://${host}:${port}/messages`, {
        certificateHashes: async () => (await connect()).certificates,
        webSocketUrl: new URL("/messages", location.href).href,
        storage: localStorage,
        // People wait: it is noticed soon that nobody answers, and that a better transport is there again.
        silenceMs: 8000,
        patienceMs: 5000,
        returnMs: 5000,
        backoff: { maxMs: 5000 },
      });
      client.onState((state) => this.onState(state));
      globalThis.chatClient = client; // for the curious, and for tests
      return client;
    });
  }

  /** The name of a session that there is, or `null`. */
  async begin() {
    const client = await this.#client;
    await client.connected();
    // Somebody left when the server could not be told.
    if (client.session?.info.user === localStorage.getItem("chat:left")) await this.#closeSession();
    if (!client.session) return null;
    ({ user: this.user, name: this.#name } = client.session.info);
    for (const name of new Set([...DEFAULT_ROOMS, ...this.#known().filter(isRoom)])) this.open(name);
    client.onSession((session) => {
      // Expired, or closed in another tab.
      if (!session) location.reload();
    });
    return this.#name;
  }

  async login(name) {
    const client = await this.#client;
    await client.request("login", { name }, { timeoutMs: 10_000 });
  }

  /** What this user has said and no room has been seen to have. */
  get waiting() {
    return outbox.all().filter(({ user }) => user === this.user);
  }

  /** What waits is not sent any more. */
  async leave() {
    this.#leaving.abort();
    for (const { id } of this.waiting) outbox.remove(id);
    localStorage.setItem("chat:left", this.user);
    await this.#closeSession();
  }

  async #closeSession() {
    const client = await this.#client;
    await client.closeSession({ timeoutMs: 5_000 }).catch(() => {});
  }

  // Rooms that were opened once are open in all tabs to come.
  #known = () => JSON.parse(localStorage.getItem("chat:rooms") ?? "[]");

  async open(name) {
    if (this.rooms.has(name)) return;
    const room = new Room(name, this.user);
    this.rooms.set(name, room);
    localStorage.setItem("chat:rooms", JSON.stringify([...new Set([...this.#known(), name])]));
    const topic = (await this.#client).topic(`room/${name}`);
    const since = room.since();
    room.from = since;
    const subscription = topic.subscribe({
      since,
      // Where that is too long ago, all that there is.
      history: since ? {} : HISTORY,
      presence: true,
      ...(this.#current === name && { join: this.#info() }),
      onMessage: (message) => {
        if (message.position) room.from ??= { ...message.position, offset: message.offset - 1 };
        this.#heard(room, message);
      },
      onPresence: ({ here }) => {
        room.people = new Map([...here].filter(([, info]) => isPerson(info)));
        this.onPeople(room);
      },
      onGap: () => {
        room.from = subscription.position;
        room.messages.clear();
        room.accepted.clear();
        // Before anything was shown nothing is missed.
        if (room.isLive) room.messages.set("gap", { gap: true });
      },
      onLive: () => {
        room.from ??= subscription.position;
        room.isLive = true;
        this.onMessages(room);
        this.#send(room);
      },
      onError: (error) => console.error(error),
    });
    this.#subscriptions.set(name, { topic, subscription });
    this.onRooms();
  }

  /** Is present in this room, and in no other. */
  show(name) {
    this.open(name);
    const before = this.#current;
    this.#current = name;
    this.rooms.get(name).unread = 0;
    if (before === name) return this.onRooms();
    const join = (room, info) => this.#subscriptions.get(room)?.subscription.join(info).catch(() => {});
    if (before) join(before, null);
    join(name, this.#info());
  }

  #info = () => ({ name: this.#name, user: this.user });

  #heard(room, { data, offset }) {
    if (offset === null) {
      // What is not kept is a client's own word, whatever that is.
      let message;
      try {
        message = data.json();
      } catch {
        return;
      }
      if (!isPerson(message)) return;
      if (message.user !== this.user) this.onTyping(room, message.name, true);
      return;
    }
    const message = data.json();
    const key = keyOf(message);
    if (outbox.get(message.id)?.user === message.user) outbox.remove(message.id);
    room.accepted.delete(key);
    room.messages.set(key, { ...message, offset });
    if (room.messages.size > SHOWN) room.messages.delete(room.messages.keys().next().value);
    if (message.user !== this.user) {
      this.onTyping(room, message.name, false);
      if (room.isLive && (room.name !== this.#current || document.hidden)) room.unread++;
    }
    if (room.isLive) this.onMessages(room);
  }

  say(name, text) {
    const room = this.rooms.get(name);
    // Growing, also when the clock does not, and unlike those of others.
    this.#lastId = Math.max(Date.now(), this.#lastId + 1);
    const id = `${this.#lastId.toString(36)}-${Math.random().toString(36).slice(2, 10)}`;
    outbox.add({ id, room: name, user: this.user, name: this.#name, text, at: Date.now(), offset: null });
    this.onMessages(room);
    this.#send(room);
  }

  /** Of a message that is in doubt: says it once more, as who is here now, and from now on as any other. */
  sayAgain({ id }) {
    const message = outbox.get(id);
    if (!message) return;
    outbox.add({ ...message, user: this.user, name: this.#name, after: undefined });
    const room = this.rooms.get(message.room);
    this.onMessages(room);
    this.#send(room);
  }

  discard({ id, room }) {
    outbox.remove(id);
    this.onMessages(this.rooms.get(room));
  }

  /** What waits, in order: as much as goes into one request. */
  #next(room) {
    const batch = [];
    let size = 0;
    for (const message of outbox.of(room.name)) {
      if (room.isDoubtful(message)) continue;
      size += 3 * message.text.length + 100;
      if (batch.length > 0 && (size > 6000 || batch.length === 50)) break;
      batch.push(message);
    }
    return batch;
  }

  /** Sends what waits, request by request, while the room is live. */
  async #send(room) {
    if (this.#sending.has(room)) return;
    this.#sending.add(room);
    const client = await this.#client;
    const { subscription } = this.#subscriptions.get(room.name);
    try {
      for (;;) {
        const batch = this.#next(room);
        if (batch.length === 0 || !subscription.isLive) break;
        // Once: it may arrive with each time that it is sent.
        for (const message of batch) if (!message.after) outbox.add({ ...message, after: subscription.position });
        const messages = batch.map(({ id, text }) => ({ id, text }));
        const { signal } = this.#leaving;
        await client.request("say", { room: room.name, messages }, { timeoutMs: 20_000, prompt: true, signal });
        for (const message of batch) {
          outbox.remove(message.id);
          if (!room.messages.has(keyOf(message))) room.accepted.set(keyOf(message), { ...message, offset: 0 });
        }
        this.onMessages(room);
      }
    } catch (error) {
      if (error.kind === "application" && error.code === "TEXT") {
        // The server will never take the first of them.
        const [message] = this.#next(room);
        if (message) outbox.remove(message.id);
        console.error(error);
        this.onMessages(room);
      }
      // Otherwise it is sent when the room is live again, unless it has been seen by then. A live room tries soon.
      if (subscription.isLive) setTimeout(() => this.#send(room), 2000);
    } finally {
      this.#sending.delete(room);
    }
  }

  async typing(name) {
    await this.#subscriptions.get(name)?.topic.publishEphemeral({ user: this.user, name: this.#name });
  }
}
