// Whose messages are sent: who leaves takes what waits along, and what somebody left behind is not said by the next in their place.
import { expect, test } from 'vitest';
import { until } from './browser.js';
import type { Page } from './browser.js';
import { MESSAGES, useRoom, write } from './chatroom.js';
import type { ChatRoom } from './chatroom.js';
import { SCREENSHOTS } from './example.js';

const js = JSON.stringify;
let room: ChatRoom;
useRoom((opened) => {
  room = opened;
});

const OUTBOX = `Object.keys(localStorage).filter((key) => key.startsWith('chat:out:'))`;
const isSeen = (text: string) => `${MESSAGES}.includes(${js(text)})`;
const isOpen = (is: boolean) => `document.getElementById('leaving').open === ${is}`;
const click = (id: string) => `document.getElementById('${id}').click()`;
const press = (text: string, label: string) =>
  `[...document.querySelectorAll('.doubtful')].find(({ textContent }) => textContent.includes(${js(text)}))
    .querySelectorAll('button').forEach((button) => button.textContent === ${js(label)} && button.click())`;

/** Until the page is left nothing that is said is sent. All else is. */
const HOLD = `(() => {
  const { request } = chatClient;
  chatClient.request = (name, ...more) => name === 'say' ? Promise.reject(new Error('held')) : request.call(chatClient, name, ...more);
})()`;

async function writeHeld(page: Page, texts: string[]): Promise<void> {
  await page.evaluate(HOLD);
  for (const text of texts) await page.evaluate(write(text));
  await until(page, `${OUTBOX}.length === ${texts.length}`);
}

async function login(page: Page, name: string): Promise<void> {
  await until(page, `document.getElementById('login')?.hidden === false && document.readyState === 'complete'`);
  await page.evaluate(`(document.getElementById('name').value = ${js(name)}, document.getElementById('login-form').requestSubmit())`);
  await until(page, `!document.getElementById('app').hidden && document.getElementById('me').textContent.includes(${js(name)})`);
}

/** Who said it, as the room has it. */
function speakers(text: string): string[] {
  const lines = room.server.read('rooms.jsonl').split('\n');
  // A message is a string of JSON in the journal's JSON.
  const said = lines.filter((line) => line.includes(js(js(text)).slice(1, -1)));
  return said.map((line) => /\\"name\\":\\"([^\\]*)\\"/.exec(line)?.[1] ?? line);
}

/** Says something, and waits until it has come: what was sent before has come too. */
async function sayAndSee(page: Page, text: string): Promise<void> {
  await page.evaluate(write(text));
  for (const page of room.pages) await until(page, isSeen(text));
}

test.each([0, 1])('who leaves is asked, and takes along what waits: browser %i', async (n) => {
  const page = room.pages[n]!;
  const [one, two, end] = [`A secret of the weaver ${n}`, `And a second ${n}`, `Good day to all ${n}`];
  await writeHeld(page, [one, two]);
  const ask = async () => {
    await page.evaluate(click('leave'));
    await until(page, isOpen(true));
    expect(await page.evaluate(`document.getElementById('leaving-title').textContent`)).toMatch(/^2 messages .*not/);
    expect(await page.evaluate(`document.activeElement.textContent`)).toBe('Stay');
  };
  // No: with the keyboard, and beside the question.
  for (const no of [() => page.press('Escape'), () => page.press('Enter'), () => page.evaluate(click('leaving'))]) {
    await ask();
    await no();
    await until(page, isOpen(false));
    expect(await page.evaluate(`${OUTBOX}.length`)).toBe(2);
    expect(await page.evaluate(`document.getElementById('app').hidden || document.getElementById('app').inert`)).toBe(false);
  }
  await ask();
  for (const [device, width, height] of [
    ['phone', 390, 780],
    ['desktop', 1280, 800],
  ] as const) {
    await page.resize(width, height);
    await until(page, `innerWidth === ${width} && document.documentElement.scrollWidth <= innerWidth`);
    await page.screenshot(`${SCREENSHOTS}/chat-leaving-${device}-${page.browser}.png`);
  }
  await page.press('Tab');
  expect(await page.evaluate(`document.activeElement.textContent`)).toBe('Discard and leave');
  await page.press('Enter');
  await login(page, `Eve ${n}`);
  expect(await page.evaluate(OUTBOX)).toEqual([]);
  await sayAndSee(page, end);
  expect([one, two, end].map(speakers)).toEqual([[], [], [`Eve ${n}`]]);
  // Who has nothing waiting is asked nothing.
  await until(page, `${OUTBOX}.length === 0`);
  await page.evaluate(click('leave'));
  await login(page, `Fay ${n}`);
});

test.each([0, 1])('what another user left waiting is not sent by itself: browser %i', async (n) => {
  const page = room.pages[n]!;
  const [one, two, three, end] = [`Mine alone ${n}`, `Mine too ${n}`, `And this ${n}`, `New here ${n}`];
  await writeHeld(page, [one, two, three]);
  // As when it has expired, or was closed in another tab.
  await page.evaluate('void chatClient.closeSession()');
  await login(page, `Gil ${n}`);
  await sayAndSee(page, end);
  const doubtful = `${MESSAGES}.filter((text) => text.startsWith('doubtful '))`;
  expect(await page.evaluate(doubtful)).toEqual([one, two, three].map((text) => `doubtful ${text}`));
  expect(await page.evaluate(`document.querySelector('.doubt').textContent`)).toContain('ritten as ');
  await page.screenshot(`${SCREENSHOTS}/chat-left-behind-${page.browser}.png`);
  expect([one, two, three, end].map(speakers)).toEqual([[], [], [], [`Gil ${n}`]]);
  // Said by who is here now, where that is wanted.
  await page.evaluate(press(two, 'Send again'));
  for (const page of room.pages) await until(page, isSeen(two));
  await page.evaluate(press(three, 'Discard'));
  await until(page, `${doubtful}.length === 1 && ${OUTBOX}.length === 1`);
  // What is not this user's is in nobody's way.
  await page.reload();
  await until(page, `${doubtful}.length === 1`);
  await sayAndSee(page, `${end}, again`);
  expect([one, two, three].map(speakers)).toEqual([[], [`Gil ${n}`], []]);
  await page.evaluate(click('leave'));
  await login(page, `Hal ${n}`);
  await page.evaluate(press(one, 'Discard'));
  await until(page, `${OUTBOX}.length === 0`);
});

test.each([0, 1])('who left when the server could not be told has left: browser %i', async (n) => {
  const page = room.pages[n]!;
  await page.evaluate(`void (chatClient.closeSession = () => Promise.reject(new Error('unreachable')))`);
  await page.evaluate(click('leave'));
  await login(page, `Ida ${n}`);
  // And whoever came then stays.
  await page.reload();
  await until(page, `document.getElementById('app').hidden === false && document.getElementById('me').textContent.includes('Ida ${n}')`);
});
