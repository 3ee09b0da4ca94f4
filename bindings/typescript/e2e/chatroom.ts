// A chat server, and two people in it: Ann in one browser, Bob in another.
import { afterAll, beforeAll, expect } from 'vitest';
import { Browser, until } from './browser.js';
import type { Page } from './browser.js';
import { Example } from './example.js';

const js = JSON.stringify;
export const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
export const isOn = (transport: string) => `globalThis.chatClient?.transport === ${js(transport)}`;

/** The messages that a page shows, each with whether it is still being sent. */
export const MESSAGES = `[...document.querySelectorAll('.message')].map((item) => {
  const meta = item.querySelector('.meta');
  return (item.classList.contains('doubtful') ? 'doubtful ' : '') + (item.classList.contains('sending') ? 'sending ' : '') + item.querySelector('.bubble').textContent.slice(0, -meta.textContent.length);
})`;

export const write = (text: string) => `(document.getElementById('text').value = ${js(text)}, document.getElementById('composer').requestSubmit())`;

export class ChatRoom {
  readonly server: Example;
  readonly ann: Page;
  readonly bob: Page;
  /** Everything that was said in the lobby, by anybody. */
  readonly said = new Set<string>();

  private constructor(server: Example, ann: Page, bob: Page) {
    this.server = server;
    this.ann = ann;
    this.bob = bob;
  }

  static async open(browsers: Browser[], ...more: string[]): Promise<ChatRoom> {
    const server = new Example('chat', ...more);
    await server.start();
    const [ann, bob] = await Promise.all([browsers[0]!.page(), browsers[1]!.page()]);
    const room = new ChatRoom(server, ann, bob);
    for (const [page, name] of [
      [ann, 'Ann'],
      [bob, 'Bob'],
    ] as const) {
      await page.resize(1280, 800);
      await page.goto(server.url);
      await until(page, `!document.getElementById('login').hidden`);
      await page.evaluate(`(document.getElementById('name').value = ${js(name)}, document.getElementById('login-form').requestSubmit())`);
      await until(page, `!document.getElementById('app').hidden`);
      await until(page, isOn('webtransport'));
    }
    return room;
  }

  get pages(): Page[] {
    return [this.ann, this.bob];
  }

  get ports(): number[] {
    return [this.server.page, this.server.webTransport];
  }

  async say(page: Page, text: string): Promise<void> {
    this.said.add(text);
    await page.evaluate(write(text));
  }

  /** Both say something every now and then, until told to stop: their texts are numbered. */
  talk(topic: string, pauseMs = 250): () => Promise<void> {
    let isOver = false;
    const speak = async (page: Page, name: string) => {
      for (let n = 1; !isOver; n++) {
        await this.say(page, `${name} ${topic} ${n}`);
        await sleep(pauseMs - 50 + ((n * 37) % 100));
      }
    };
    const speakers = Promise.all([speak(this.ann, 'Ann'), speak(this.bob, 'Bob')]);
    return async () => {
      isOver = true;
      await speakers;
    };
  }

  /** Both see so many messages that match. */
  async untilSeen(pattern: RegExp, count: number): Promise<void> {
    for (const page of this.pages) await until(page, `${MESSAGES}.filter((text) => ${String(pattern)}.test(text)).length >= ${count}`, 90_000);
  }

  /** Everything was said and is shown: once, in the same order on both pages, and numbered ones in the order of their numbers. */
  async expectAllOnce(): Promise<void> {
    const isAll = `(() => { const m = ${MESSAGES}; return (m.length === ${this.said.size} && m.every((text) => !/^(sending|doubtful) /.test(text))) || m.length + ': ' + m.slice(-5); })()`;
    for (const page of this.pages) await until(page, isAll, 90_000);
    const [one, other] = [await this.ann.evaluate<string[]>(MESSAGES), await this.bob.evaluate<string[]>(MESSAGES)];
    expect(one).toEqual(other);
    expect(new Set(one)).toEqual(this.said);
    const numbers = new Map<string, number>();
    for (const text of one) {
      const [, topic, number] = /^(.*) (\d+)$/.exec(text) ?? [];
      if (topic === undefined) continue;
      expect(Number(number), text).toBe((numbers.get(topic) ?? 0) + 1);
      numbers.set(topic, Number(number));
    }
    for (const page of this.pages) {
      expect(await page.evaluate(`Object.keys(localStorage).filter((key) => key.startsWith('chat:out'))`)).toEqual([]);
    }
  }
}

/** A room for all tests of a file, with Ann in Chromium and Bob in Firefox: `opened` is told of it. */
export function useRoom(opened: (room: ChatRoom) => void, ...more: string[]): void {
  const browsers: Browser[] = [];
  let room: ChatRoom;
  beforeAll(async () => {
    browsers.push(...(await Promise.all([Browser.start('chromium'), Browser.start('firefox')])));
    room = await ChatRoom.open(browsers, ...more);
    opened(room);
  });
  afterAll(async () => {
    await Promise.all(browsers.map((browser) => browser.stop()));
    await room.server.clear();
  });
}
