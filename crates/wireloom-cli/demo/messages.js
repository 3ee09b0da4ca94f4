// What the user sends, what comes back, and the list of both.

const KINDS = { bidi: "stream", uni: "uni", datagram: "datagram" };
const KEPT = 200;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Everything of one readable stream, as one array. */
async function readAll(readable) {
  const chunks = [];
  const reader = readable.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    chunks.push(value);
  }
  const all = new Uint8Array(chunks.reduce((length, chunk) => length + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

/** Calls `handle` with everything that `readable` yields, until it ends. */
export async function forEach(readable, handle) {
  const reader = readable.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      handle(value);
    }
  } catch {
    // The session is over; `closed` tells why.
  }
}

export class Messages {
  constructor(list) {
    this.list = list;
    this.transport = null;
  }

  attach(transport, measurements) {
    this.transport = transport;
    // Answers on streams of their own and datagrams find their question by its text, oldest first.
    this.waiting = { uni: [], datagram: [] };
    const { datagrams } = transport;
    this.datagramWriter = (datagrams.createWritable?.() ?? datagrams.writable).getWriter();
    measurements.sendDatagram = (bytes) => this.datagramWriter.write(bytes);
    forEach(datagrams.readable, (bytes) => {
      if (!measurements.takeDatagram(bytes)) this.answered("datagram", bytes);
    });
    forEach(transport.incomingUnidirectionalStreams, async (stream) => {
      try {
        this.answered("uni", await readAll(stream));
      } catch (error) {
        this.add("bad", "uni", error.message);
      }
    });
    forEach(transport.incomingBidirectionalStreams, async ({ readable }) => {
      try {
        this.add("in", "bidi", decoder.decode(await readAll(readable)));
      } catch (error) {
        this.add("bad", "bidi", error.message);
      }
    });
  }

  detach() {
    this.transport = null;
  }

  async send(how, text) {
    const { transport } = this;
    if (!transport) return;
    const bytes = encoder.encode(text);
    const sent = performance.now();
    try {
      if (how === "bidi") {
        const { readable, writable } = await transport.createBidirectionalStream();
        this.add("out", how, text);
        const writer = writable.getWriter();
        const answer = readAll(readable);
        await writer.write(bytes);
        await writer.close();
        this.add("in", how, decoder.decode(await answer), performance.now() - sent);
      } else if (how === "uni") {
        this.add("out", how, text);
        this.waiting.uni.push({ text, sent });
        const writer = (await transport.createUnidirectionalStream()).getWriter();
        await writer.write(bytes);
        await writer.close();
      } else {
        const most = transport.datagrams.maxDatagramSize;
        if (bytes.length > most) throw new Error(`${bytes.length} bytes are too many: a datagram takes ${most}`);
        this.add("out", how, text);
        this.waiting.datagram.push({ text, sent });
        // Lost ones would be waited for in vain.
        if (this.waiting.datagram.length > KEPT) this.waiting.datagram.shift();
        await this.datagramWriter.write(bytes);
      }
    } catch (error) {
      this.add("bad", how, error.message || String(error));
    }
  }

  answered(how, bytes) {
    const text = decoder.decode(bytes);
    const index = this.waiting[how].findIndex((question) => question.text === text);
    const [question] = index < 0 ? [] : this.waiting[how].splice(index, 1);
    this.add("in", how, text, question && performance.now() - question.sent);
  }

  add(way, how, text, elapsed) {
    const item = document.createElement("li");
    item.className = way;
    const cell = (name, content) => {
      const span = document.createElement("span");
      span.className = name;
      span.textContent = content;
      item.append(span);
    };
    cell("way", { out: "↑", in: "↓", bad: "!" }[way]);
    cell("kind", KINDS[how]);
    cell("text", text.length > 400 ? `${text.slice(0, 400)}…` : text || "(empty)");
    cell("time", elapsed === undefined ? "" : `${elapsed.toFixed(1)} ms`);
    this.list.querySelector(".empty")?.remove();
    this.list.prepend(item);
    while (this.list.children.length > KEPT) this.list.lastChild.remove();
  }
}
