// Headless Chromium (DevTools protocol) and Firefox (WebDriver BiDi), without any driver between.
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { WebSocket } from 'ws';

export type BrowserName = 'chromium' | 'firefox';
export const BROWSERS: BrowserName[] = ['chromium', 'firefox'];

/** For whatever must happen: far more than any healthy run takes on a busy machine. */
export const PATIENCE_MS = 60_000;

const CHROMIUM = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-background-timer-throttling',
  '--disable-renderer-backgrounding',
  '--disable-backgrounding-occluded-windows',
  '--disable-dev-shm-usage',
  '--hide-scrollbars',
  '--remote-debugging-port=0',
];

/** No second, speculative QUIC connection; no first-run pages; pages in the background as fast as the one in front. */
const FIREFOX = `
user_pref("network.http.speculative-parallel-limit", 0);
user_pref("dom.min_background_timeout_value", 4);
user_pref("dom.timeout.enable_budget_timer_throttling", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("toolkit.telemetry.enabled", false);
user_pref("app.update.enabled", false);
user_pref("app.normandy.enabled", false);
user_pref("services.settings.server", "http://localhost:1/");
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("remote.active-protocols", 1);
`;

type Json = Record<string, unknown>;

/** By what Chromium and what Firefox call them. */
const KEYS = { Tab: [9, '\uE004'], Enter: [13, '\uE007'], Escape: [27, '\uE00C'] } as const;
export type Key = keyof typeof KEYS;

/** Commands and their answers over a WebSocket: both protocols number them. */
class Wire {
  #socket: WebSocket;
  #last = 0;
  #waiting = new Map<number, { resolve: (value: Json) => void; reject: (error: Error) => void }>();

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (text: Buffer) => {
      const message = JSON.parse(text.toString()) as { id?: number; error?: unknown; result?: Json; message?: string };
      const waiting = this.#waiting.get(message.id ?? 0);
      if (!waiting) return;
      this.#waiting.delete(message.id ?? 0);
      if (message.error) waiting.reject(new Error(JSON.stringify(message)));
      else waiting.resolve(message.result ?? {});
    });
    socket.on('close', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the browser has ended'));
      this.#waiting.clear();
    });
  }

  static async open(url: string): Promise<Wire> {
    const socket = new WebSocket(url, { perMessageDeflate: false, maxPayload: 1 << 28 });
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    return new Wire(socket);
  }

  async send(method: string, params: Json = {}, more: Json = {}): Promise<Json> {
    const id = ++this.#last;
    return await new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#socket.send(JSON.stringify({ id, method, params, ...more }));
    });
  }

  close(): void {
    this.#socket.close();
  }
}

/** A page in a profile of its own: it shares no storage with others. */
export interface Page {
  readonly browser: BrowserName;
  goto(url: string): Promise<void>;
  reload(): Promise<void>;
  /** The value of an expression, of a promise where it is one. What it throws, this throws. */
  evaluate<T = unknown>(expression: string): Promise<T>;
  press(key: Key): Promise<void>;
  resize(width: number, height: number, dark?: boolean): Promise<void>;
  screenshot(path: string): Promise<void>;
  close(): Promise<void>;
}

async function poll<T>(what: string, look: () => T | undefined): Promise<T> {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      const value = look();
      if (value !== undefined) return value;
    } catch {
      // Not there yet.
    }
    if (Date.now() > end) throw new Error(`${what} did not happen`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Waits until an expression is true in a page, and says what else it is if it never is. */
export async function until(page: Page, expression: string, patienceMs = PATIENCE_MS): Promise<void> {
  const end = Date.now() + patienceMs;
  for (;;) {
    const value = await page.evaluate(expression).catch((error: unknown) => String(error));
    if (value === true) return;
    if (Date.now() > end) throw new Error(`${page.browser}: ${expression} is ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export class Browser {
  readonly name: BrowserName;
  #child: ChildProcess;
  #wire: Wire;
  #folder: string;

  private constructor(name: BrowserName, child: ChildProcess, wire: Wire, folder: string) {
    this.name = name;
    this.#child = child;
    this.#wire = wire;
    this.#folder = folder;
  }

  static async start(name: BrowserName): Promise<Browser> {
    const folder = mkdtempSync(join(tmpdir(), `wireloom-${name}-`));
    const profile = join(folder, 'profile');
    mkdirSync(profile);
    if (name === 'firefox') writeFileSync(join(profile, 'user.js'), FIREFOX);
    const command =
      name === 'chromium'
        ? ['chromium', ...CHROMIUM, `--user-data-dir=${profile}`, 'about:blank']
        : ['firefox-esr', '--headless', '--no-remote', '--remote-debugging-port=0', '--profile', profile, 'about:blank'];
    // The kernel ends the browser when this process dies in any way.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...command], {
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
      env: { ...process.env, HOME: folder },
    });
    let said = '';
    child.stderr.on('data', (text: Buffer) => (said = (said + text.toString()).slice(-10_000)));
    try {
      const endpoint = await poll(`the start of ${name}`, () => {
        if (child.exitCode !== null) throw new Error(said);
        if (name === 'firefox') return /WebDriver BiDi listening on (ws:\S+)/.exec(said)?.[1];
        const [port, path] = readFileSync(join(profile, 'DevToolsActivePort'), 'utf8').split('\n');
        return path ? `ws://127.0.0.1:${port}${path}` : undefined;
      });
      const wire = await Wire.open(name === 'firefox' ? `${endpoint}/session` : endpoint);
      if (name === 'firefox') await wire.send('session.new', { capabilities: {} });
      return new Browser(name, child, wire, folder);
    } catch (error) {
      process.kill(-child.pid!, 'SIGKILL');
      throw new Error(`${String(error)}\n${said}`, { cause: error });
    }
  }

  /** A page in a profile of its own. */
  async page(): Promise<Page> {
    const wire = this.#wire;
    if (this.name === 'firefox') {
      const { userContext } = await wire.send('browser.createUserContext');
      // A window: tabs in the background are not drawn.
      const { context } = await wire.send('browsingContext.create', { type: 'window', userContext });
      return new FirefoxPage(wire, context as string, userContext as string);
    }
    const { browserContextId } = await wire.send('Target.createBrowserContext');
    const { targetId } = await wire.send('Target.createTarget', { url: 'about:blank', browserContextId });
    const { sessionId } = await wire.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new ChromiumPage(wire, { sessionId }, browserContextId as string);
    await page.send('Page.enable');
    // Every page believes that it is the one that is looked at.
    await page.send('Emulation.setFocusEmulationEnabled', { enabled: true });
    return page;
  }

  async stop(): Promise<void> {
    this.#wire.close();
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      process.kill(-this.#child.pid!, 'SIGKILL');
      await ended;
    }
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

function save(path: string, base64: unknown): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, Buffer.from(base64 as string, 'base64'));
}

class ChromiumPage implements Page {
  readonly browser = 'chromium';

  constructor(
    private wire: Wire,
    private session: Json,
    private context: string,
  ) {}

  send(method: string, params: Json = {}): Promise<Json> {
    return this.wire.send(method, params, this.session);
  }

  async goto(url: string): Promise<void> {
    const { errorText } = await this.send('Page.navigate', { url });
    if (errorText) throw new Error(`${url}: ${JSON.stringify(errorText)}`);
    await until(this, 'document.readyState === "complete"');
  }

  async reload(): Promise<void> {
    await this.evaluate('window.isOld = true');
    await this.send('Page.reload');
    await until(this, '!window.isOld && document.readyState === "complete"');
  }

  async evaluate<T>(expression: string): Promise<T> {
    const options = { expression, awaitPromise: true, returnByValue: true, userGesture: true };
    const { result, exceptionDetails } = (await this.send('Runtime.evaluate', options)) as {
      result: { value: T };
      exceptionDetails?: { exception?: { description?: string }; text: string };
    };
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async press(key: Key): Promise<void> {
    const event = { key, code: key, windowsVirtualKeyCode: KEYS[key][0], ...(key === 'Enter' && { text: '\r' }) };
    for (const type of ['keyDown', 'keyUp']) await this.send('Input.dispatchKeyEvent', { type, ...event });
  }

  async resize(width: number, height: number, dark = false): Promise<void> {
    const mobile = width < 600;
    await this.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: mobile ? 2 : 1, mobile });
    const features = [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }];
    await this.send('Emulation.setEmulatedMedia', { features });
  }

  async screenshot(path: string): Promise<void> {
    save(path, (await this.send('Page.captureScreenshot', { format: 'png' }))['data']);
  }

  async close(): Promise<void> {
    await this.wire.send('Target.disposeBrowserContext', { browserContextId: this.context });
  }
}

class FirefoxPage implements Page {
  readonly browser = 'firefox';

  constructor(
    private wire: Wire,
    private context: string,
    private userContext: string,
  ) {}

  async goto(url: string): Promise<void> {
    await this.wire.send('browsingContext.navigate', { context: this.context, url, wait: 'complete' });
  }

  async reload(): Promise<void> {
    await this.wire.send('browsingContext.reload', { context: this.context, wait: 'complete' });
  }

  async evaluate<T>(expression: string): Promise<T> {
    // BiDi has values of its own kind; JSON comes through as it is.
    const wrapped = `(async () => JSON.stringify((await (${expression})) ?? null))()`;
    const { type, result, exceptionDetails } = (await this.wire.send('script.evaluate', {
      expression: wrapped,
      target: { context: this.context },
      awaitPromise: true,
      userActivation: true,
    })) as { type: string; result: { value: string }; exceptionDetails: { text: string } };
    if (type === 'exception') throw new Error(exceptionDetails.text);
    return JSON.parse(result.value) as T;
  }

  async press(key: Key): Promise<void> {
    const actions = ['keyDown', 'keyUp'].map((type) => ({ type, value: KEYS[key][1] }));
    await this.wire.send('input.performActions', { context: this.context, actions: [{ type: 'key', id: 'keyboard', actions }] });
  }

  async resize(width: number, height: number): Promise<void> {
    await this.wire.send('browsingContext.setViewport', {
      context: this.context,
      viewport: { width, height },
      devicePixelRatio: width < 600 ? 2 : 1,
    });
  }

  async screenshot(path: string): Promise<void> {
    save(path, (await this.wire.send('browsingContext.captureScreenshot', { context: this.context }))['data']);
  }

  async close(): Promise<void> {
    await this.wire.send('browsingContext.close', { context: this.context });
    await this.wire.send('browser.removeUserContext', { userContext: this.userContext });
  }
}
