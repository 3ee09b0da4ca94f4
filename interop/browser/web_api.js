// The W3C's API point by point: what a page sees of streams, datagrams, closing, send orders, statistics and errors. A case
// returns plain JSON; the Rust side judges it. The ideas are those of the web platform tests for WebTransport.

import { bytes, connect, decoder, echo, encoder, expectEcho, nextStream, readAll, sleep, writeAll } from '/lab.js';

/** Long enough for anything that will happen at all. */
const PATIENCE = 20_000;

/** What a promise does: its value, or the error's name, and what a WebTransportError has beside it; 'pending' if nothing. */
const outcome = (promise) => {
  const settled = promise.then(
    (value) => ({ value: value ?? null }),
    (error) => ({ name: error?.name, source: error?.source ?? null, code: error?.streamErrorCode ?? null }),
  );
  return Promise.race([settled, sleep(PATIENCE).then(() => 'pending')]);
};

/** The name of what a call throws. */
function thrown(call) {
  try {
    const made = call();
    made?.closed?.catch(() => {});
    made?.ready?.catch(() => {});
    return null;
  } catch (error) {
    return error.name;
  }
}

/** Whether a promise is still pending after a while. */
const isPending = (promise, milliseconds = 300) =>
  Promise.race([promise.then(() => false, () => false), sleep(milliseconds).then(() => true)]);

export const cases = {
  async constructorErrors({ url, hash }) {
    const hashes = [{ algorithm: 'sha-256', value: bytes(hash) }];
    return {
      http: thrown(() => new WebTransport(url.replace('https:', 'http:'))),
      fragment: thrown(() => new WebTransport(`${url}#part`)),
      nonsense: thrown(() => new WebTransport('https://')),
      pooledHashes: thrown(() => new WebTransport(url, { allowPooling: true, serverCertificateHashes: hashes })),
      fine: thrown(() => new WebTransport(url, { serverCertificateHashes: hashes }).close()),
    };
  },

  async duplicateProtocols({ url }) {
    return {
      twice: thrown(() => new WebTransport(url, { protocols: ['a', 'a'] })),
      empty: thrown(() => new WebTransport(url, { protocols: [''] })),
    };
  },

  async unknownHashAlgorithm({ url, hash }) {
    const transport = new WebTransport(url, { serverCertificateHashes: [{ algorithm: 'md5', value: bytes(hash) }] });
    transport.closed.catch(() => {});
    return outcome(transport.ready);
  },

  // A stream that is asked for before the session is there comes when it is.
  async streamBeforeReady({ url, hash }) {
    const transport = new WebTransport(url, { serverCertificateHashes: [{ algorithm: 'sha-256', value: bytes(hash) }] });
    const stream = await transport.createBidirectionalStream();
    const [, received] = await Promise.all([writeAll(stream.writable, encoder.encode('early')), readAll(stream.readable)]);
    await transport.ready;
    transport.close();
    return decoder.decode(received);
  },

  async closeBeforeReady({ url, hash }) {
    const transport = new WebTransport(url, { serverCertificateHashes: [{ algorithm: 'sha-256', value: bytes(hash) }] });
    transport.close();
    const [ready, closed] = await Promise.all([outcome(transport.ready), outcome(transport.closed)]);
    return { ready: ready.name, closed: closed.name };
  },

  async useAfterClose(options) {
    const transport = await connect(options);
    const streams = transport.incomingUnidirectionalStreams.getReader();
    const datagram = transport.datagrams.readable.getReader().read();
    transport.close({ closeCode: 1, reason: 'first' });
    transport.close({ closeCode: 2, reason: 'second' });
    const closed = await transport.closed;
    return {
      closed: { closeCode: closed.closeCode, reason: closed.reason },
      stream: await outcome(transport.createBidirectionalStream()),
      incoming: await outcome(streams.read().then(({ done }) => done)),
      datagram: await outcome(datagram.then(({ done }) => done)),
    };
  },

  async longCloseReason({ reason, ...options }) {
    const transport = await connect(options);
    await expectEcho(transport, 'before');
    transport.close({ closeCode: 5, reason });
    await transport.closed;
  },

  // Everything that waits when the server closes the session.
  async whatWaitsWhenTheServerCloses(options) {
    const transport = await connect(options);
    const stream = await transport.createBidirectionalStream();
    const writer = stream.writable.getWriter();
    const reader = stream.readable.getReader();
    await writer.write(encoder.encode('close'));
    const waits = {
      read: outcome(reader.read()),
      written: outcome(writer.closed),
      incoming: outcome(transport.incomingBidirectionalStreams.getReader().read().then(({ done }) => done)),
      datagram: outcome(transport.datagrams.readable.getReader().read().then(({ done }) => done)),
    };
    const { closeCode, reason } = await transport.closed;
    const result = { closed: { closeCode, reason } };
    for (const [name, promise] of Object.entries(waits)) result[name] = await promise;
    return result;
  },

  async sessionAborted(options) {
    const transport = await connect(options);
    const closed = outcome(transport.closed);
    const stream = await transport.createBidirectionalStream();
    await writeAll(stream.writable, encoder.encode('abort')).catch(() => {});
    return closed;
  },

  async byobReads(options) {
    const transport = await connect(options);
    const stream = await transport.createBidirectionalStream();
    const sent = encoder.encode('0123456789'.repeat(1000));
    const sending = writeAll(stream.writable, sent);
    let reader;
    try {
      reader = stream.readable.getReader({ mode: 'byob' });
    } catch (error) {
      return error.name;
    }
    const received = [];
    let buffer = new ArrayBuffer(7);
    for (;;) {
      const { value, done } = await reader.read(new Uint8Array(buffer));
      if (done) break;
      received.push(...value);
      buffer = value.buffer;
    }
    await sending;
    transport.close();
    return received.length === sent.length && received.every((byte, i) => byte === sent[i]);
  },

  async emptyStreams(options) {
    const transport = await connect(options);
    const sizes = [];
    for (const size of [0, 1, 0, 65536]) sizes.push((await echo(transport, new Uint8Array(size))).length);
    transport.close();
    return sizes;
  },

  async serverStreamsInOrder({ count, ...options }) {
    const transport = await connect(options);
    const reader = transport.incomingUnidirectionalStreams.getReader();
    const texts = [];
    for (let i = 0; i < count; i++) {
      const { value } = await reader.read();
      texts.push(readAll(value).then((content) => Number(decoder.decode(content))));
    }
    const numbers = await Promise.all(texts);
    transport.close();
    return numbers.sort((a, b) => a - b).every((number, i) => number === i) && numbers.length;
  },

  // More streams open at once than a server lets a client begin with.
  async manyOpenStreams({ count, ...options }) {
    const transport = await connect(options);
    const streams = [];
    for (let i = 0; i < count; i++) {
      const stream = await transport.createBidirectionalStream();
      const writer = stream.writable.getWriter();
      await writer.write(encoder.encode(`${i}`));
      streams.push({ writer, reader: stream.readable.getReader() });
    }
    for (const { writer } of streams) await writer.close();
    let bytes = 0;
    for (const { reader } of streams) {
      for (let chunk; !(chunk = await reader.read()).done; ) bytes += chunk.value.length;
    }
    transport.close();
    return bytes;
  },

  // A peer that does not read: `ready` holds the writer back, and the session can be closed all the same.
  async backpressure(options) {
    const transport = await connect(options);
    const writer = (await transport.createUnidirectionalStream()).getWriter();
    let written = 0;
    for (; written < 1 << 30; written += 65536) {
      if (await isPending(writer.ready, 1000)) break;
      writer.write(new Uint8Array(65536)).catch(() => {});
    }
    writer.closed.catch(() => {});
    writer.ready.catch(() => {});
    transport.close();
    await transport.closed;
    return written;
  },

  async datagramAttributes(options) {
    const transport = await connect(options);
    const { datagrams } = transport;
    datagrams.incomingHighWaterMark = 5;
    datagrams.outgoingHighWaterMark = 6;
    datagrams.incomingMaxAge = 100;
    datagrams.outgoingMaxAge = 200;
    const { incomingHighWaterMark, outgoingHighWaterMark, incomingMaxAge, outgoingMaxAge } = datagrams;
    transport.close();
    return [incomingHighWaterMark, outgoingHighWaterMark, incomingMaxAge, outgoingMaxAge];
  },

  // One that is too large is dropped, and harms nothing.
  async datagramTooLarge(options) {
    const transport = await connect(options);
    const { datagrams } = transport;
    const writer = (datagrams.createWritable ? datagrams.createWritable() : datagrams.writable).getWriter();
    const reader = datagrams.readable.getReader();
    const large = await outcome(writer.write(new Uint8Array(100_000)));
    const next = reader.read();
    let answered = false;
    next.finally(() => (answered = true));
    while (!answered) {
      writer.write(encoder.encode('small')).catch(() => {});
      await sleep(50);
    }
    const { value } = await next;
    await expectEcho(transport, 'still there');
    transport.close();
    return { large: large.value === null ? 'dropped' : large, next: decoder.decode(value) };
  },

  // Datagrams of every size come back whole, up to what fits into the smallest packets that QUIC may begin with.
  async datagramSizes({ sizes, ...options }) {
    const transport = await connect(options);
    const { datagrams } = transport;
    const writer = (datagrams.createWritable ? datagrams.createWritable() : datagrams.writable).getWriter();
    const reader = datagrams.readable.getReader();
    for (const size of sizes) {
      let done = false;
      const received = (async () => {
        for (;;) {
          const { value } = await reader.read();
          // A late copy of the one before may still come.
          if (value.length === size) return value.every((byte) => byte === size % 251);
        }
      })().finally(() => (done = true));
      while (!done) {
        await writer.write(new Uint8Array(size).fill(size % 251));
        await Promise.race([received, sleep(50)]);
      }
      if (!(await received)) throw new Error(`${size} bytes were changed`);
    }
    transport.close();
  },

  async statistics(options) {
    const transport = await connect(options);
    await expectEcho(transport, 'x'.repeat(100_000));
    const stats = await transport.getStats();
    transport.close();
    return stats;
  },

  async sendOrders(options) {
    const transport = await connect(options);
    const streams = [];
    for (const sendOrder of [3, -1, 0]) {
      const stream = await transport.createUnidirectionalStream({ sendOrder });
      const seen = stream.sendOrder;
      stream.sendOrder = sendOrder + 1;
      streams.push([seen, stream.sendOrder]);
      await writeAll(stream, encoder.encode(`order ${sendOrder}`));
    }
    const answers = [];
    const reader = transport.incomingUnidirectionalStreams.getReader();
    for (const _ of streams) answers.push(decoder.decode(await readAll((await reader.read()).value)));
    transport.close();
    return { streams, answers: answers.sort() };
  },

  async sendGroups(options) {
    const transport = await connect(options);
    const group = transport.createSendGroup();
    const stream = await transport.createBidirectionalStream({ sendGroup: group, sendOrder: 1 });
    const isIn = stream.writable.sendGroup === group;
    const [, received] = await Promise.all([writeAll(stream.writable, encoder.encode('grouped')), readAll(stream.readable)]);
    transport.close();
    return { isIn, received: decoder.decode(received) };
  },

  async draining(options) {
    const transport = await connect(options);
    await transport.draining;
    await expectEcho(transport, 'a session that drains goes on');
    transport.close();
  },

  // What the page asks for as headers reaches the server, and the response's come back.
  async headers({ headers, ...options }) {
    const { url, hash } = options;
    const transport = new WebTransport(url, {
      headers,
      serverCertificateHashes: [{ algorithm: 'sha-256', value: bytes(hash) }],
    });
    transport.closed.catch(() => {});
    await transport.ready;
    const request = JSON.parse(decoder.decode(await readAll(await nextStream(transport.incomingUnidirectionalStreams))));
    const response = transport.responseHeaders?.get('x-answer') ?? null;
    transport.close();
    return { request, response };
  },

  async severalSessions({ count, ...options }) {
    const transports = await Promise.all(Array.from({ length: count }, () => connect(options)));
    await Promise.all(transports.map((transport, i) => expectEcho(transport, `session ${i}`)));
    // One that ends is none of the others' business.
    transports.pop().close();
    await Promise.all(transports.map((transport, i) => expectEcho(transport, `session ${i} again`)));
    for (const transport of transports) transport.close();
  },

  async inAWorker(options) {
    const source = `
      import { connect, expectEcho } from '${location.origin}/lab.js';
      onmessage = async ({ data }) => {
        try {
          const transport = await connect(data);
          await expectEcho(transport, 'from a worker');
          transport.close();
          postMessage('echoed');
        } catch (error) {
          postMessage(String(error));
        }
      };`;
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })), { type: 'module' });
    const answer = new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
    });
    worker.postMessage(options);
    return answer;
  },
};
