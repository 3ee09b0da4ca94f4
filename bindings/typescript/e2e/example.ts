// The Rust examples, as users run them.
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const target = fileURLToPath(new URL('../../../target', import.meta.url));
export const SCREENSHOTS = join(target, 'screenshots');

/** In the folder that `WIRELOOM_EXAMPLES` names, else what was built last. */
function program(name: string): string {
  const folder = process.env['WIRELOOM_EXAMPLES'];
  if (folder) return join(folder, name);
  const built = ['release', 'debug'].map((profile) => join(target, profile, 'examples', name)).filter((path) => existsSync(path));
  const [newest] = built.sort((one, other) => statSync(other).mtimeMs - statSync(one).mtimeMs);
  if (!newest) throw new Error(`the example ${name} is not built: \`cargo build --package wireloom-examples --examples\``);
  return newest;
}

export class Example {
  #name: string;
  #arguments: string[];
  #child: ChildProcess | undefined;
  #data = mkdtempSync(join(tmpdir(), 'wireloom-example-'));
  /** Of the page, over TCP, and of WebTransport, over UDP. The same after a restart. */
  page = 0;
  webTransport = 0;

  constructor(name: string, ...more: string[]) {
    this.#name = name;
    this.#arguments = more;
  }

  get url(): string {
    return `http://localhost:${this.page}/`;
  }

  /** What it has written. */
  read(file: string): string {
    return readFileSync(join(this.#data, file), 'utf8');
  }

  /** It is as if it had not. */
  forget(file: string): void {
    rmSync(join(this.#data, file));
  }

  /** Starts it, or again: on the same ports, with the same data. */
  async start(): Promise<void> {
    const args = ['--page', `localhost:${this.page}`, '--webtransport', `0.0.0.0:${this.webTransport}`, '--data', this.#data, ...this.#arguments];
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', program(this.#name), ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#child = child;
    for await (const line of createInterface(child.stdout)) {
      const [, page, port] = /http:\/\/localhost:(\d+)\/ \(WebTransport on port (\d+)\)/.exec(line) ?? [];
      if (!port) throw new Error(`${this.#name} said ${line}`);
      child.stdout.resume();
      this.page = Number(page);
      this.webTransport = Number(port);
      return;
    }
    throw new Error(`${this.#name} has ended`);
  }

  /** `SIGKILL`: without a word to anybody. `SIGINT`: in good order. */
  async stop(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (!child) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    if (child.kill(signal)) await ended;
  }

  async clear(): Promise<void> {
    await this.stop();
    rmSync(this.#data, { recursive: true, force: true });
  }
}
