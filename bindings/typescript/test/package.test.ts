// The package as it is published: its size, its files, and its use from an empty project.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bundle, INTERNAL } from '../scripts/bundle.mjs';
import { Serve } from './serve.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (file: string): string => readFileSync(join(root, file), 'utf8');

test('everything is at most 12 KiB, minified and gzipped', async () => {
  const size = gzipSync(await bundle(), { level: 9 }).length;
  console.log(`wireloom.min.js: ${size} bytes gzipped`);
  expect(size).toBeLessThanOrEqual(12 * 1024);
});

test('the committed bundle is what the source builds to', async () => {
  expect(read('wireloom.min.js') === (await bundle()), 'npm run build').toBe(true);
});

test('what has short names in the bundle is no part of the API', () => {
  const sources = readdirSync(join(root, 'src')).map((file) => read(`src/${file}`));
  const program = ts.createProgram([join(root, 'dist/index.d.ts')], { noLib: true });
  const checker = program.getTypeChecker();
  const index = checker.getSymbolAtLocation(program.getSourceFile(program.getRootFileNames()[0]!)!)!;
  const names = new Set<string>();
  const collect = (node: ts.Node): void => {
    if (ts.isIdentifier(node)) names.add(node.text);
    ts.forEachChild(node, collect);
  };
  for (const symbol of checker.getExportsOfModule(index)) {
    const { declarations } = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
    declarations!.forEach(collect);
  }
  expect(names).toContain('certificateHashes');
  for (const name of INTERNAL.split(' ')) {
    expect(sources.some((source) => new RegExp(`\\b${name}\\b`).test(source)), `${name} is nowhere any more`).toBe(true);
    expect(names).not.toContain(name);
  }
});

test('the lock file names no registry, and the package depends on nothing', () => {
  expect(read('package-lock.json')).not.toMatch(/"resolved"|https?:\/\/(?!opencollective|github\.com|www\.patreon)[^"]*\.tgz/);
  expect(JSON.parse(read('package.json'))).not.toHaveProperty('dependencies');
});

describe('the packed tarball, installed in an empty project', () => {
  let serve: Serve;
  let folder: string;
  let files: string[];
  const run = (program: string, ...args: string[]): string => {
    const { status, stdout, stderr } = spawnSync(program, args, { cwd: folder, encoding: 'utf8' });
    if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${status}\n${stdout}${stderr}`);
    return stdout;
  };

  beforeAll(async () => {
    serve = await Serve.start();
    folder = mkdtempSync(join(tmpdir(), 'wireloom-consumer-'));
    const packed = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const [{ filename, files: list }] = JSON.parse(packed) as [{ filename: string; files: { path: string }[] }];
    files = list.map(({ path }) => path);
    writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }');
    run('npm', 'install', '--offline', '--no-audit', '--no-fund', '--ignore-scripts', `./${filename}`);
  });
  afterAll(async () => {
    await serve.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test('holds what is needed and no more', () => {
    const needed = ['LICENSE-APACHE', 'LICENSE-MIT', 'package.json', 'README.md', 'dist/index.js', 'dist/index.d.ts', 'wireloom.min.js'];
    expect(files).toEqual(expect.arrayContaining(needed));
    expect(files.filter((file) => !/^(dist\/.*\.(js|d\.ts)|[^/]+)$/.test(file))).toEqual([]);
    expect(files.some((file) => file.includes('test'))).toBe(false);
  });

  test('tells its version', () => {
    const { version } = JSON.parse(read('package.json')) as { version: string };
    const script = `console.log(require('wireloom/package.json').version)`;
    expect(run(process.execPath, '--input-type=commonjs', '--eval', script)).toBe(`${version}\n`);
  });

  const program = (socket: string) => `
    import { Client } from 'wireloom';
    ${socket}
    const client = new Client(process.argv[2], { WebSocket });
    client.onState(({ status }) => console.log(status));
    console.log((await client.request('upper', 'hello from an empty project')).text());
    client.close();
  `;

  test('is used from Node', () => {
    // Node 20 has no WebSocket: that of `ws`, as the README says.
    const ws = join(root, 'node_modules/ws/wrapper.mjs');
    writeFileSync(join(folder, 'node.mjs'), program(`import { WebSocket } from ${JSON.stringify(ws)};`));
    expect(run(process.execPath, 'node.mjs', serve.ws)).toBe('connected\nHELLO FROM AN EMPTY PROJECT\nclosed\n');
  });

  test('is used from Deno', () => {
    writeFileSync(join(folder, 'deno.mjs'), program('const { WebSocket } = globalThis;').replace('process.argv[2]', 'Deno.args[0]'));
    const deno = join(root, 'node_modules/.bin/deno');
    const said = run(deno, 'run', '--no-remote', '--allow-net', '--allow-read', '--allow-env', 'deno.mjs', serve.ws);
    expect(said).toBe('connected\nHELLO FROM AN EMPTY PROJECT\nclosed\n');
  });

  test('has types that fit its use', () => {
    writeFileSync(join(folder, 'use.ts'), USE);
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    const options = ['--noEmit', '--strict', '--target', 'es2022', '--lib', 'es2022,dom', '--module', 'nodenext'];
    expect(run(process.execPath, tsc, ...options, 'use.ts')).toBe('');
  });
});

const USE = `
import { Client, Data } from 'wireloom';
import type { ClientState, Position, Session, WireloomError } from 'wireloom';

interface Line { from: string; text: string }
interface Chat {
  requests: { login: { request: string; reply: void }; sum: { request: number[]; reply: number } };
  signals: { typing: { room: string } };
  events: { notice: { text: string } };
  topics: { [room: \`room/\${string}\`]: Line };
}

export async function use(): Promise<void> {
  const client = new Client<Chat>('https://example.com/chat', { storage: localStorage, certificateHashes: async () => ['00'] });
  const sum: number = (await client.request('sum', [1, 2], { timeoutMs: 5, idempotent: true, signal: new AbortController().signal })).json();
  await client.request('login', 'ann');
  await client.request('sum', Data.json([sum]));
  await client.signal('typing', { room: 'a' }, { unreliable: true });
  client.on('notice', (message) => { const text: string = message.json().text; console.log(text); });
  const topic = client.topic('room/a');
  const position: Position = await topic.publish({ from: 'ann', text: 'hi' });
  const subscription = topic.subscribe({ since: position, history: 3, presence: true, join: { name: 'ann' } });
  for await (const { data, offset } of subscription) console.log(data.json().text, offset);
  const state: ClientState = client.state;
  const session: Session | null = client.session;
  const raw: WebTransport | null = client.webTransport;
  const failed = (error: WireloomError): string => error.kind + error.code;
  console.log(state, session, raw, failed);

  // @ts-expect-error: no such request
  await client.request('logni', 'ann');
  // @ts-expect-error: another payload
  await client.request('sum', 'one');
  // @ts-expect-error: no such topic
  client.topic('lobby');
  // @ts-expect-error: another message
  await topic.publish({ from: 1 });
  // @ts-expect-error: the server says it, not the client
  await client.signal('notice', { text: 'x' });

  const untyped = new Client('wss://example.com/');
  const anything: string = (await untyped.request('anything', { at: 'all' })).json();
  console.log(anything, await untyped.topic('any').publish(1));
}
`;
