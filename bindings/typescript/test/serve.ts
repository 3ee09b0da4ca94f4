// The program `wireloom serve`, as users run it.
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { WebSocket } from 'ws';
import type { WebSocketConstructor } from '../src/index.js';

/** What `WIRELOOM` names, else what was built last. */
function program(): string {
  const target = fileURLToPath(new URL('../../../target', import.meta.url));
  const named = process.env['WIRELOOM'];
  if (named) return named;
  const built = [`${target}/release/wireloom`, `${target}/debug/wireloom`].filter((path) => existsSync(path));
  const [newest] = built.sort((one, other) => statSync(other).mtimeMs - statSync(one).mtimeMs);
  if (!newest) throw new Error('there is no program to test against: `cargo build --package wireloom-cli`, or WIRELOOM=path');
  return newest;
}

export class Serve {
  #child: ChildProcess;
  /** `https://127.0.0.1:PORT` */
  readonly webTransport: string;
  /** `http://localhost:PORT/`, without TLS. */
  readonly page: string;
  /** In hexadecimal digits. */
  readonly certificateHash: string;

  private constructor(child: ChildProcess, listening: { webtransport: string; page: string; certificate_sha256: string }) {
    this.#child = child;
    this.webTransport = listening.webtransport;
    this.page = listening.page;
    this.certificateHash = listening.certificate_sha256;
  }

  static async start(...more: string[]): Promise<Serve> {
    const bind = more.includes('--bind') ? [] : ['--bind', '127.0.0.1:0', '--page-bind', '127.0.0.1:0'];
    const child = spawn(program(), ['serve', '--json', ...bind, ...more], { stdio: ['ignore', 'pipe', 'inherit'] });
    for await (const line of createInterface(child.stdout)) {
      child.stdout.resume();
      return new Serve(child, JSON.parse(line) as never);
    }
    throw new Error(`wireloom serve has ended: ${child.exitCode}`);
  }

  get ws(): string {
    return `ws://127.0.0.1:${new URL(this.page).port}/messages`;
  }

  get wss(): string {
    return `${this.webTransport.replace('https', 'wss')}/messages`;
  }

  async stop(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill(signal);
    await ended;
  }
}

/** Node 20 has no WebSocket of its own. */
export const NodeWebSocket = WebSocket as unknown as WebSocketConstructor;

/** The server's certificate is of its own making. */
export const Unchecked = class extends WebSocket {
  constructor(url: string) {
    super(url, { rejectUnauthorized: false });
  }
} as unknown as WebSocketConstructor;
