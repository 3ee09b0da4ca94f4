// The chat and the live chart, each in Chromium and in Firefox, through everything that happens to networks and servers. After each
// test: every message once, in order, the same everywhere.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Browser, until } from './browser.js';
import type { Page } from './browser.js';
import { ChatRoom, isOn, MESSAGES, sleep, write } from './chatroom.js';
import { Example, SCREENSHOTS } from './example.js';
import { cut, heal } from './network.js';

const browsers: Browser[] = [];
const chart = new Example('pub-sub');
let charts: Page[];
let room: ChatRoom;
let ann: Page;
let bob: Page;
/** Takes a minute, and goes on beside the other tests. */
let minute: Promise<void>;

/** People talk while their network is gone for a minute. */
async function aMinuteWithoutNetwork(room: ChatRoom): Promise<void> {
  const stop = room.talk('in a minute without network', 500);
  await room.untilSeen(/minute/, 4);
  const end = cut(room.ports);
  await sleep(30_000);
  expect(await room.ann.evaluate(`document.querySelectorAll('.sending .state[aria-label="sending"]').length`)).toBeGreaterThan(5);
  await room.ann.screenshot(`${SCREENSHOTS}/chat-offline-chromium.png`);
  await sleep(30_000);
  await stop();
  end();
  await room.expectAllOnce();
  await room.server.clear();
}

/** A chart goes on, and has had every message once, in order, since the last time. */
async function expectContiguous(page: Page): Promise<void> {
  await until(page, `received.length > 100`);
  const jumps = await page.evaluate<number[][]>(`(() => {
    const jumps = [];
    for (let n = 1; n < received.length; n++) if (received[n] !== received[n - 1] + 1) jumps.push([received[n - 1], received[n]]);
    received.splice(0, received.length - 1);
    return jumps;
  })()`);
  expect(jumps).toEqual([]);
}

const clickRoom = (name: string) =>
  `[...document.querySelectorAll('#rooms button')].find((button) => button.textContent.startsWith('${name}')).click()`;
const number = (id: string) => `Number(document.getElementById('${id}').textContent.replace(/\\D/g, ''))`;

/** The page in all sizes and colours; it fits into each. */
async function screenshots(page: Page, name: string): Promise<void> {
  // Firefox has no switch for the colours.
  for (const dark of page.browser === 'chromium' ? [false, true] : [false]) {
    for (const [device, width, height] of [
      ['desktop', 1280, 800],
      ['phone', 390, 780],
    ] as const) {
      await page.resize(width, height, dark);
      await until(page, `innerWidth === ${width} && document.documentElement.scrollWidth <= innerWidth`);
      // What is drawn with time is drawn.
      await page.evaluate('new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))).then(() => 1)');
      await page.screenshot(`${SCREENSHOTS}/${name}-${device}-${page.browser}${dark ? '-dark' : ''}.png`);
    }
  }
}

beforeAll(async () => {
  browsers.push(...(await Promise.all([Browser.start('chromium'), Browser.start('firefox')])));
  minute = ChatRoom.open(browsers).then(aMinuteWithoutNetwork);
  // It is awaited at the end.
  minute.catch(() => {});
  room = await ChatRoom.open(browsers);
  [ann, bob] = [room.ann, room.bob];
  await chart.start();
  charts = await Promise.all(browsers.map((browser) => browser.page()));
  for (const page of charts) {
    await page.resize(1280, 800);
    await page.goto(chart.url);
    await until(page, isOn('webtransport'));
  }
});

afterAll(async () => {
  heal();
  await Promise.all(browsers.map((browser) => browser.stop()));
  await room.server.clear();
  await chart.clear();
});

test('two browsers talk', async () => {
  await room.say(ann, 'Good morning! Did the new pattern come out of the loom?');
  await until(bob, `${MESSAGES}.length === 1`);
  await room.say(bob, 'It did, and it is lovely.');
  await room.say(bob, 'Four colours, and no thread broken.');
  await until(ann, `${MESSAGES}.length === 3`);
  await room.say(ann, 'Then let us try the eight-shaft draft next. I will bring the punched cards; could you wind the warp meanwhile?');
  await room.expectAllOnce();
  for (const page of room.pages) {
    await until(page, `document.querySelectorAll('#people li').length === 2`);
    expect(await page.evaluate(`document.querySelectorAll('.mine .state[aria-label="sent"]').length`)).toBe(2);
  }
  // An unread message in another room, and who is where.
  await bob.evaluate(clickRoom('weaving'));
  await until(bob, `document.getElementById('title').textContent === 'weaving'`);
  await until(ann, `document.querySelectorAll('#people li').length === 1`);
  await bob.evaluate(write('Anybody here?'));
  await until(ann, `document.querySelector('#rooms .unread')?.textContent === '1'`);
  await bob.evaluate(clickRoom('lobby'));
  await until(ann, `document.querySelectorAll('#people li').length === 2`);
  await bob.evaluate(`(document.getElementById('text').value = 'B', document.getElementById('text').dispatchEvent(new Event('input')))`);
  await until(ann, `document.getElementById('typing').textContent === 'Bob is typing…'`);
  for (const page of room.pages) {
    await screenshots(page, 'chat');
    await page.resize(1280, 800);
  }
  await bob.evaluate(`document.getElementById('text').value = ''`);
});

test('who joins gets the history', async () => {
  const cleo = await browsers[0]!.page();
  await cleo.goto(room.server.url);
  await until(cleo, `!document.getElementById('login').hidden`);
  await cleo.evaluate(`(document.getElementById('name').value = 'Cleo', document.getElementById('login-form').requestSubmit())`);
  await until(cleo, `${MESSAGES}.length === ${room.said.size}`);
  expect(await cleo.evaluate(MESSAGES)).toEqual(await ann.evaluate(MESSAGES));
  await until(ann, `document.querySelectorAll('#people li').length === 3`);
  // Chromium says good-bye for a page that goes, and not for a window.
  await cleo.goto('about:blank');
  await until(ann, `document.querySelectorAll('#people li').length === 2`);
  await cleo.close();
});

/** A frame of the chart, as its page tells of it. */
interface Frame {
  at: number;
  end: number;
  took: number;
  age: number;
  points: number;
}
const quantile = (values: number[], share: number) => [...values].sort((one, other) => one - other)[Math.floor(values.length * share)]!;
const median = (values: number[]) => quantile(values, 0.5);
const steps = (values: number[]) => values.slice(1).map((value, n) => value - values[n]!);

/** So many frames of a chart of so many seconds, and when its messages came meanwhile. */
async function watch(page: Page, seconds: number, count: number): Promise<{ frames: Frame[]; arrivals: number[] }> {
  await page.evaluate(`(() => {
    const field = document.getElementById('window');
    field.value = ${seconds};
    field.dispatchEvent(new Event('input'));
    globalThis.arrivals = [];
    received.push = (number) => (arrivals.push(performance.now()), Array.prototype.push.call(received, number));
  })()`);
  // The first is drawn as a whole.
  await page.evaluate('new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))).then(() => 1)');
  await page.evaluate('(drawn.splice(0), arrivals.splice(0), 1)');
  await until(page, `drawn.length >= ${count}`);
  const watched = await page.evaluate<{ frames: Frame[]; arrivals: number[] }>('({ frames: drawn.splice(0), arrivals })');
  await page.evaluate('delete received.push');
  const [took, pauses, ages] = [watched.frames.map(({ took }) => took), steps(watched.frames.map(({ at }) => at)), watched.frames.map(({ age }) => age)];
  const figures = (values: number[]) => `${median(values).toFixed(1)} / ${quantile(values, 0.95).toFixed(1)} ms`;
  console.log(
    `${page.browser}, ${seconds} s, ${Math.round(median(watched.frames.map(({ points }) => points)))} points a frame; median / p95: ` +
      `drawing ${figures(took)}, between frames ${figures(pauses)}, age of the newest point ${figures(ages)}, ` +
      `between messages ${figures(steps(watched.arrivals))} (longest ${Math.max(...steps(watched.arrivals)).toFixed(0)} ms)`,
  );
  return watched;
}

/** What the page itself is responsible for: how often a machine gives it a frame is not its to say. */
async function expectSmooth(page: Page): Promise<void> {
  const many = await watch(page, 20, 200);
  const few = await watch(page, 8, 200);
  // Where nothing else took the processor meanwhile: on a busy machine that is few of them.
  const cost = ({ frames }: { frames: Frame[] }) => Math.min(...frames.map(({ took }) => took));
  expect(median(many.frames.map(({ points }) => points))).toBeGreaterThan(1.5 * median(few.frames.map(({ points }) => points)));
  for (const { frames } of [many, few]) {
    expect(cost({ frames })).toBeLessThan(16);
    // It moves by time, not by what arrives, and never back.
    const times = steps(frames.map(({ at }) => at));
    for (const [n, moved] of steps(frames.map(({ end }) => end)).entries()) {
      expect(moved).toBeGreaterThanOrEqual(0.9 * times[n]!);
      expect(moved).toBeLessThanOrEqual(1.1 * times[n]!);
    }
    expect(median(frames.map(({ age }) => age))).toBeLessThan(1000);
  }
  // However many points there are.
  expect(cost(many)).toBeLessThan(2 * cost(few) + 4);
}

test('thousands of points a second', async () => {
  for (const page of charts) await until(page, `${number('points')} >= 2000 && ${number('frames')} > 0`);
  // So many that the longest window is full of them.
  for (const page of charts) await until(page, 'received.length > 8500');
  for (const page of charts) {
    const others = charts.filter((other) => other !== page);
    for (const other of others) await other.resize(300, 200);
    await page.resize(1280, 800);
    await expectSmooth(page);
    await screenshots(page, 'chart');
    await expectContiguous(page);
    // Nobody looks from here on.
    await page.resize(300, 200);
  }
}, 400_000);

test('a reload in the middle of sending', async () => {
  for (const page of room.pages) {
    for (let n = 1; n <= 3; n++) await room.say(page, `${page.browser} before the reload ${n}`);
    await page.reload();
    await until(page, `!document.getElementById('app').hidden`);
  }
  await room.expectAllOnce();
});

test('UDP blocked: all go on over WebSocket, and return', async () => {
  const stop = room.talk('without UDP');
  const end = cut([room.server.webTransport, chart.webTransport], ['udp']);
  for (const page of [...room.pages, ...charts]) await until(page, isOn('websocket'), 90_000);
  end();
  for (const page of [...room.pages, ...charts]) await until(page, isOn('webtransport'), 90_000);
  await stop();
  await room.expectAllOnce();
  for (const page of charts) await expectContiguous(page);
});

test('the network cut for five seconds', async () => {
  const stop = room.talk('in five seconds without network');
  await room.untilSeen(/five/, 4);
  const end = cut([...room.ports, chart.page, chart.webTransport]);
  await sleep(5_000);
  end();
  await room.untilSeen(/five/, 30);
  await stop();
  await room.expectAllOnce();
  // What was missed has come.
  for (const page of charts) await expectContiguous(page);
});

test('the servers are killed and started again', async () => {
  const stop = room.talk('while the server was killed');
  await room.untilSeen(/killed/, 4);
  await Promise.all([room.server.stop('SIGKILL'), chart.stop('SIGKILL')]);
  await sleep(1_000);
  await Promise.all([room.server.start(), chart.start()]);
  await room.untilSeen(/killed/, 20);
  await stop();
  await room.expectAllOnce();
  // The chart's server keeps nothing over its end: it begins anew, and says so.
  for (const page of charts) {
    await until(page, `${number('missed')} > 0`, 90_000);
    await page.evaluate('received.splice(0, received.length)');
    await expectContiguous(page);
  }
});

test('the server is stopped in good order and started again', async () => {
  const stop = room.talk('while the server was stopped');
  await room.untilSeen(/stopped/, 4);
  await room.server.stop('SIGINT');
  await room.server.start();
  await room.untilSeen(/stopped/, 20);
  await stop();
  await room.expectAllOnce();
});

test('the network cut for sixty seconds', async () => {
  await minute;
});
