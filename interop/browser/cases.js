// What a page does in each case. A case returns plain JSON; the Rust side judges it.

import {
  connect,
  decoder,
  encoder,
  expectEcho,
  failure,
  nextStream,
  readAll,
  sha256,
  sleep,
  writeAll,
} from '/lab.js';

export const cases = {
  async bidiEcho(options) {
    const transport = await connect(options);
    await expectEcho(transport, 'bidi');
    await expectEcho(transport, '');
    transport.close();
  },

  async uniEcho(options) {
    const transport = await connect(options);
    await writeAll(await transport.createUnidirectionalStream(), encoder.encode('uni'));
    const answer = await readAll(await nextStream(transport.incomingUnidirectionalStreams));
    transport.close();
    return decoder.decode(answer);
  },

  async datagramEcho(options) {
    const transport = await connect(options);
    const { datagrams } = transport;
    const writer = (datagrams.createWritable ? datagrams.createWritable() : datagrams.writable).getWriter();
    const reader = datagrams.readable.getReader();
    const next = reader.read();
    // Datagrams may be lost: send until one comes back.
    let answered = false;
    next.finally(() => (answered = true));
    while (!answered) {
      await writer.write(encoder.encode('datagram'));
      await sleep(50);
    }
    const { value } = await next;
    const size = datagrams.maxDatagramSize;
    transport.close();
    return { text: decoder.decode(value), size };
  },

  async bulkEcho({ size, ...options }) {
    const transport = await connect(options);
    const data = new Uint8Array(size);
    let state = 0x9e3779b9;
    for (let i = 0; i < size; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      data[i] = state;
    }
    const stream = await transport.createBidirectionalStream();
    const send = async () => {
      const writer = stream.writable.getWriter();
      for (let at = 0; at < size; at += 65536) {
        await writer.ready;
        writer.write(data.subarray(at, at + 65536)).catch(() => {}); // the next `ready` reports it
      }
      await writer.close();
    };
    const [, received] = await Promise.all([send(), readAll(stream.readable)]);
    transport.close();
    return { size: received.length, sent: await sha256(data), received: await sha256(received) };
  },

  async manyStreams({ atOnce, total, ...options }) {
    const transport = await connect(options);
    let done = 0;
    while (done < total) {
      const wave = Array.from({ length: Math.min(atOnce, total - done) }, (_, i) => expectEcho(transport, `stream ${done + i}`));
      done += (await Promise.all(wave)).length;
    }
    transport.close();
    return done;
  },

  async serverOpens(options) {
    const transport = await connect(options);
    const uni = readAll(await nextStream(transport.incomingUnidirectionalStreams));
    const bidi = await nextStream(transport.incomingBidirectionalStreams);
    await writeAll(bidi.writable, encoder.encode('answer of the page'));
    const result = { uni: decoder.decode(await uni), bidi: decoder.decode(await readAll(bidi.readable)) };
    await expectEcho(transport, 'the server has read the answer');
    transport.close();
    return result;
  },

  async serverCloses(options) {
    const transport = await connect(options);
    const { closeCode, reason } = await transport.closed;
    return { closeCode, reason };
  },

  async clientCloses({ closeCode, reason, ...options }) {
    const transport = await connect(options);
    await expectEcho(transport, 'before the close');
    transport.close({ closeCode, reason });
    await transport.closed;
  },

  // The server resets a stream of its own, resets its half of ours, and stops one of ours.
  async serverResets(options) {
    const transport = await connect(options);
    const incoming = (await nextStream(transport.incomingUnidirectionalStreams)).getReader();
    await incoming.read(); // a reset may overtake what was sent before it, the stream's header included

    const bidi = await transport.createBidirectionalStream();
    const failures = Promise.all([failure(incoming.read()), failure(readAll(bidi.readable))]);
    await writeAll(bidi.writable, encoder.encode('reset'));
    const [uni, reset] = await failures;

    const writer = (await transport.createUnidirectionalStream()).getWriter();
    const closed = failure(writer.closed);
    await writer.write(encoder.encode('stop'));
    const stopped = await closed;
    transport.close();
    return { uni, reset, stopped };
  },

  // The page resets its half of one stream, and stops the server's half of another.
  async clientResets({ code, ...options }) {
    const transport = await connect(options);
    const error = new WebTransportError({ message: 'aborted by the test', streamErrorCode: code });

    const first = await transport.createBidirectionalStream();
    const writer = first.writable.getWriter();
    await writer.write(encoder.encode('observe'));
    await first.readable.getReader().read(); // the server has seen the stream
    await writer.abort(error);

    const second = await transport.createBidirectionalStream();
    const opener = second.writable.getWriter();
    await opener.write(encoder.encode('observe'));
    const reader = second.readable.getReader();
    await reader.read();
    await reader.cancel(error);
    await expectEcho(transport, 'after both'); // the session has outlived them
    return {};
  },

  async handshakeFails(options) {
    try {
      await connect(options);
    } catch (error) {
      return { name: error.name, message: error.message };
    }
    throw new Error('the session was accepted');
  },

  async protocol(options) {
    const transport = await connect(options);
    await expectEcho(transport, 'protocol');
    const { protocol } = transport;
    transport.close();
    return protocol ?? null;
  },

  async silence({ seconds, ...options }) {
    const transport = await connect(options);
    await expectEcho(transport, 'before');
    await sleep(seconds * 1000);
    await expectEcho(transport, 'after');
    transport.close();
  },

  // Uses the demo page of `wireloom serve` as a person would: every button once.
  async demoPage() {
    const frame = document.createElement('iframe');
    frame.src = '/demo/';
    const loaded = new Promise((resolve) => frame.addEventListener('load', resolve));
    document.body.append(frame);
    await loaded;
    const $ = (id) => frame.contentDocument.getElementById(id);
    const until = async (what, done) => {
      for (const start = performance.now(); !done(); ) {
        if (performance.now() - start > 20_000) throw new Error(`${what}; ${$('state').textContent} ${$('advice').textContent} ${$('log').textContent}`);
        await sleep(50);
      }
    };
    const logged = (text) => $('log').textContent.split(text).length - 1;
    // It connects by itself, or when told to.
    if (!$('connect').disabled) $('connect').click();
    await until('it does not connect', () => $('state').dataset.state === 'open');
    for (const kind of ['bidi', 'uni', 'datagram']) {
      $('message').value = `over a ${kind}`;
      $(`send-${kind}`).click();
      await until(`no answer over a ${kind}`, () => logged(`over a ${kind}`) >= 2);
    }
    await until('no round trip is shown', () => /\d/.test($('s-last').textContent));
    $('close-code').value = 7;
    $('close-reason').value = 'seen enough';
    $('close').click();
    await until('it does not close', () => $('state').dataset.state !== 'open');
    return $('advice').textContent;
  },

  // Leaves a session with open streams behind; the controller then closes or reloads the window.
  async hold(options) {
    const transport = await connect(options);
    await expectEcho(transport, 'held');
    const open = await transport.createBidirectionalStream();
    const writer = open.writable.getWriter();
    await writer.write(encoder.encode('observe'));
    await open.readable.getReader().read();
    globalThis.held = [transport, writer];
  },
};
