// What the cases have in common.

export const encoder = new TextEncoder();
export const decoder = new TextDecoder();
export const describe = (error) => `${error?.name}: ${error?.message}`;
export const bytes = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export async function connect({ url, hash, protocols }) {
  const settings = { serverCertificateHashes: [{ algorithm: 'sha-256', value: bytes(hash) }] };
  if (protocols) settings.protocols = protocols;
  const transport = new WebTransport(url, settings);
  transport.closed.catch(() => {}); // each case that cares looks at it
  await transport.ready;
  return transport;
}

export async function readAll(readable) {
  const parts = [];
  const reader = readable.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    parts.push(value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

export async function writeAll(writable, data) {
  const writer = writable.getWriter();
  await writer.write(data);
  await writer.close();
}

export async function echo(transport, data) {
  const stream = await transport.createBidirectionalStream();
  const [, received] = await Promise.all([writeAll(stream.writable, data), readAll(stream.readable)]);
  return received;
}

export async function expectEcho(transport, text) {
  const received = decoder.decode(await echo(transport, encoder.encode(text)));
  if (received !== text) throw new Error(`echo of ${text} was ${received}`);
}

export async function nextStream(streams) {
  const reader = streams.getReader();
  const { value, done } = await reader.read();
  reader.releaseLock();
  if (done) throw new Error('no stream came');
  return value;
}

export const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, '0')).join('');
export const sha256 = async (data) => hex(await crypto.subtle.digest('SHA-256', data));
export const streamError = (error) => ({ name: error?.name, code: error?.streamErrorCode ?? null });
export const failure = (promise) => promise.then(() => ({ name: null, code: null }), streamError);
