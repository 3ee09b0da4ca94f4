// Round trips, on one stream and as datagrams, and throughput over one echoed stream.

import { Plot } from "./plot.js";
import { forEach } from "./messages.js";

const $ = (id) => document.getElementById(id);
const PING_EVERY = 250;
/** A datagram that has not come back by then is lost, in milliseconds. */
const LOST_AFTER = 2000;
const KEPT = 1000;
const CHUNK = new Uint8Array(64 * 1024);
const RUN_FOR = 5000;
/** How a datagram of ours is told from a message: four bytes that no UTF-8 text begins with, then a number. */
const MARK = 0xff70696e;

const mbits = (bytes, ms) => (bytes * 8) / 1000 / ms;
const rateText = (bytes, ms) => `${mbits(bytes, ms).toFixed(0)} Mbit/s`;
const sizeText = (bytes) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

class Samples {
  constructor(prefix) {
    this.prefix = prefix;
    this.reset();
  }

  reset() {
    this.values = [];
    this.lost = 0;
  }

  add(value) {
    this.values.push(value);
    if (this.values.length > KEPT) this.values.shift();
  }

  show() {
    const sorted = [...this.values].sort((a, b) => a - b);
    const put = (name, value) => { $(`${this.prefix}-${name}`).textContent = value === undefined ? "–" : `${value.toFixed(2)} ms`; };
    put("last", this.values.at(-1));
    put("median", sorted[Math.floor((sorted.length - 1) * 0.5)]);
    put("p99", sorted[Math.floor((sorted.length - 1) * 0.99)]);
  }
}

export class Measurements {
  constructor() {
    this.transport = null;
    this.rtt = new Plot($("rtt-plot"), { seconds: 30, unit: "ms", floor: 1 });
    this.rate = new Plot($("throughput-plot"), { seconds: RUN_FOR / 1000, unit: "Mbit/s", floor: 10 });
    this.rate.freeze();
    this.stream = new Samples("s");
    this.datagram = new Samples("d");
    $("throughput").addEventListener("click", () => this.runThroughput());
  }

  async attach(transport) {
    this.transport = transport;
    this.stream.reset();
    this.datagram.reset();
    this.flying = new Map();
    this.number = 0;
    this.rtt.restart();
    let writer;
    let pending = null;
    try {
      const { readable, writable } = await transport.createBidirectionalStream();
      writer = writable.getWriter();
      let back = 0;
      forEach(readable, (bytes) => {
        back += bytes.length;
        if (back >= 8 && pending !== null) {
          back -= 8;
          this.note("a", this.stream, performance.now() - pending);
          pending = null;
        }
      });
    } catch {
      return;
    }
    const tick = () => {
      if (this.transport !== transport) return;
      if ($("ping").checked && !document.hidden) {
        if (pending === null) {
          pending = performance.now();
          writer.write(new Uint8Array(8)).catch(() => {});
        }
        this.pingDatagram();
      }
      setTimeout(tick, PING_EVERY);
    };
    tick();
  }

  detach() {
    this.transport = null;
    this.rtt.freeze();
  }

  pingDatagram() {
    const now = performance.now();
    for (const [number, sent] of this.flying) {
      if (now - sent > LOST_AFTER) {
        this.flying.delete(number);
        this.datagram.lost += 1;
      }
    }
    $("d-lost").textContent = this.datagram.lost;
    if (this.transport.datagrams.maxDatagramSize < 8) return;
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, MARK);
    view.setUint32(4, this.number);
    this.flying.set(this.number, now);
    this.number += 1;
    this.sendDatagram(bytes).catch(() => {});
  }

  /** Whether `bytes` are one of our measurements. */
  takeDatagram(bytes) {
    if (bytes.length !== 8) return false;
    const view = new DataView(bytes.buffer, bytes.byteOffset, 8);
    if (view.getUint32(0) !== MARK) return false;
    const sent = this.flying.get(view.getUint32(4));
    if (sent !== undefined) {
      this.flying.delete(view.getUint32(4));
      this.note("b", this.datagram, performance.now() - sent);
    }
    return true;
  }

  note(series, samples, value) {
    samples.add(value);
    samples.show();
    this.rtt.add(series, value);
  }

  async runThroughput() {
    const { transport } = this;
    if (!transport) return;
    const button = $("throughput");
    button.disabled = true;
    button.textContent = "running";
    this.rate.restart();
    const started = performance.now();
    const total = { up: 0, down: 0 };
    let last = { at: started, up: 0, down: 0 };
    const show = () => {
      const now = performance.now();
      for (const [way, series] of [["up", "a"], ["down", "b"]]) {
        const [bytes, elapsed] = [total[way] - last[way], now - last.at];
        this.rate.add(series, mbits(bytes, elapsed), now);
        $(`${way}-now`).textContent = rateText(bytes, elapsed);
        $(`${way}-average`).textContent = rateText(total[way], now - started);
        $(`${way}-total`).textContent = sizeText(total[way]);
      }
      last = { at: now, ...total };
    };
    const timer = setInterval(show, 200);
    try {
      const { readable, writable } = await transport.createBidirectionalStream();
      const writer = writable.getWriter();
      const received = forEach(readable, (bytes) => { total.down += bytes.length; });
      while (performance.now() - started < RUN_FOR) {
        await writer.ready;
        await writer.write(CHUNK);
        total.up += CHUNK.length;
      }
      await writer.close();
      await received;
    } catch {
      // The session ended meanwhile; its state says why.
    }
    clearInterval(timer);
    // The rest of the last interval is too short for a rate; it counts for the totals.
    const elapsed = performance.now() - started;
    for (const way of ["up", "down"]) {
      $(`${way}-average`).textContent = rateText(total[way], elapsed);
      $(`${way}-total`).textContent = sizeText(total[way]);
    }
    this.rate.freeze();
    button.textContent = "Run for 5 s";
    button.disabled = this.transport === null;
  }
}
