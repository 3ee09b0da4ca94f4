import { describe, expect, test } from 'vitest';
import { BACKOFF, pause } from '../src/backoff.js';
import { Data } from '../src/data.js';
import { Memory, parseSession } from '../src/session.js';

describe('backoff', () => {
  const backoff = { ...BACKOFF, firstMs: 100, maxMs: 3000 };
  test('pauses double and are spread', () => {
    expect([0, 1, 2, 3, 4, 5, 6, 7].map((n) => pause(backoff, n, 1))).toEqual([100, 200, 400, 800, 1600, 3000, 3000, 3000]);
    expect([0, 1, 5].map((n) => pause(backoff, n, 0))).toEqual([50, 100, 1500]);
    expect(pause(backoff, 1e9, 1)).toBe(3000);
    expect(pause({ ...backoff, firstMs: 0, maxMs: 0 }, 3, 0.5)).toBe(0);
  });
});

describe('payloads', () => {
  test.each<[string, unknown, string, string]>([
    ['text', 'жü', 'utf8', 'жü'],
    ['no payload', undefined, 'utf8', ''],
    ['an object', { a: [1, null] }, 'utf8', '{"a":[1,null]}'],
    ['a number', 1.5, 'utf8', '1.5'],
    ['null', null, 'utf8', 'null'],
    ['bytes', new Uint8Array([104, 105]), 'binary', 'hi'],
    ['a buffer', new Uint8Array([104, 105]).buffer, 'binary', 'hi'],
    ['a view of part of a buffer', new DataView(new Uint8Array([0, 104, 105, 0]).buffer, 1, 2), 'binary', 'hi'],
    ['text as JSON', Data.json('hi'), 'utf8', '"hi"'],
  ])('%s', (_, value, encoding, text) => {
    const data = Data.of(value);
    expect(data.encoding).toBe(encoding);
    expect(data.text()).toBe(text);
  });
  test('a byte order mark is a character like any other', () => {
    expect(Data.text('\uFEFFa').text()).toBe('\uFEFFa');
    expect(new Data('utf16', new Uint8Array([0xff, 0xfe, 0x61, 0])).text()).toBe('\uFEFFa');
    expect(Data.text('\uFEFF{}').json()).toEqual({});
  });
  test('JSON', () => {
    expect(Data.of({ a: 1 }).json()).toEqual({ a: 1 });
    expect(Data.of(undefined).json()).toBeUndefined();
    expect(() => Data.of('{').json()).toThrow(SyntaxError);
    expect(() => Data.of(() => 1)).toThrow('the payload is no JSON');
  });
  test.each([new Blob(['x']), new ReadableStream(), new SharedArrayBuffer(1)])('%s is none', (value) => {
    expect(() => Data.of(value)).toThrow(expect.objectContaining({ kind: 'invalid' }) as Error);
  });
});

describe('sessions', () => {
  test('are read', () => {
    const session = parseSession('{"k":"key","c":"2019-01-15T11:29:22.123456789Z","l":"2019-01-15T12:29:22+01:00","x":1}');
    expect(session).toEqual({
      key: 'key',
      created: new Date('2019-01-15T11:29:22.123Z'),
      lastUsed: new Date('2019-01-15T11:29:22Z'),
      info: {},
    });
  });
  test.each(['', '{', 'null', '{}', '{"k":""}', '{"k":1}', '[]'])('%j is none', (text) => {
    expect(() => parseSession(text)).toThrow('the server sent a session that is none');
  });
});

test('a storage that fails is as good as none', async () => {
  const fail = () => {
    throw new Error('quota exceeded');
  };
  const memory = new Memory({ getItem: fail, setItem: fail, removeItem: fail }, 'https://example.com/');
  await memory.set('session', 'x');
  await memory.set('session', null);
  expect(await memory.get('session')).toBeNull();
});
