// A page that ends before it hears that its message has arrived, and comes back when the server has forgotten the message's key: as
// after a night in a closed laptop. It has to find the message in the room, or to say that it cannot know.
import { expect, test } from 'vitest';
import { until } from './browser.js';
import type { Page } from './browser.js';
import { MESSAGES, useRoom, write } from './chatroom.js';
import type { ChatRoom } from './chatroom.js';
import { SCREENSHOTS } from './example.js';

const js = JSON.stringify;
let room: ChatRoom;
// It forgets keys at once.
useRoom((opened) => {
  room = opened;
}, '--remember', '0');

const isSeen = (text: string) => `${MESSAGES}.includes(${js(text)})`;
const DOUBTFUL = `${MESSAGES}.filter((text) => text.startsWith('doubtful '))`;
const OUTBOX = `Object.keys(localStorage).filter((key) => key.startsWith('chat:out:'))`;

/**
 * What the page takes from its outbox from now on is there again when it ends, as if it had not heard of it. So is something that
 * was written and never sent.
 */
const hearNothing = (unsent: string) => `(() => {
  const kept = new Map();
  const { removeItem } = Storage.prototype;
  Storage.prototype.removeItem = function (key) {
    const entry = key.startsWith('chat:out:') && this.getItem(key);
    if (entry) kept.set(key, entry);
    removeItem.call(this, key);
  };
  globalThis.unhear = () => {
    for (const [key, entry] of kept) localStorage.setItem(key, entry);
    const [[key, entry]] = kept;
    const unsent = { ...JSON.parse(entry), id: JSON.parse(entry).id + 'z', text: ${js(unsent)} };
    delete unsent.after;
    localStorage.setItem(key + 'z', JSON.stringify(unsent));
    kept.clear();
  };
  addEventListener('pagehide', () => kept.size > 0 && unhear());
})()`;

/** Much is said by another, in few requests. */
async function chatter(page: Page, name: string, count: number): Promise<void> {
  await page.evaluate(`(async () => {
    const all = Array.from({ length: ${count} }, (_, n) => ({ id: ${js(name)} + '-' + n, text: ${js(name)} + ' ' + n }));
    while (all.length > 0) await chatClient.request('say', { room: 'lobby', messages: all.splice(0, 50) }, { timeoutMs: 60_000 });
  })()`);
}

async function comeBack(page: Page): Promise<void> {
  await page.reload();
  await until(page, `!document.getElementById('app').hidden`);
}

/** How often it is in the room. Pages that have seen it show it once. */
const count = (text: string) => room.server.read('rooms.jsonl').split(JSON.stringify(js(text)).slice(1, -1)).length - 1;

test.each([0, 1])('what has arrived is not sent again: browser %i', async (n) => {
  const [page, other] = [room.pages[n]!, room.pages[1 - n]!];
  const [question, unsent, end] = [`Is the warp wound? ${n}`, `Written in the train ${n}`, `That was all ${n}`];
  await page.evaluate(hearNothing(unsent));
  await page.evaluate(write(question));
  await until(other, isSeen(question));
  await until(page, `${OUTBOX}.length === 0`);
  // More than a page begins with, and less than the room keeps.
  await chatter(other, `chatter-${n}`, 250);
  await comeBack(page);
  await until(page, `${OUTBOX}.length === 0`);
  await page.evaluate(write(end));
  for (const page of room.pages) await until(page, isSeen(end));
  // In the order in which they were sent: nothing is under way.
  expect([question, unsent, end].map(count)).toEqual([1, 1, 1]);
  for (const page of room.pages) {
    const shown = await page.evaluate<string[]>(MESSAGES);
    for (const text of [question, unsent, end]) expect(shown.filter((other) => other === text)).toEqual([text]);
  }
});

test.each([0, 1])('what may have arrived is sent again by who wrote it: browser %i', async (n) => {
  const [page, other] = [room.pages[n]!, room.pages[1 - n]!];
  const [one, two, unsent] = [`Which thread? ${n}`, `And which needle? ${n}`, `Written on the ship ${n}`];
  await page.evaluate(hearNothing(unsent));
  for (const text of [one, two]) {
    await page.evaluate(write(text));
    await until(other, isSeen(text));
  }
  await until(page, `${OUTBOX}.length === 0`);
  // More than the room keeps.
  await chatter(other, `much-${n}`, 600);
  await comeBack(page);
  // What was never sent is, and nothing else.
  await until(other, isSeen(unsent));
  await until(page, isSeen(unsent));
  expect(await page.evaluate(DOUBTFUL)).toEqual([`doubtful ${one}`, `doubtful ${two}`]);
  await page.screenshot(`${SCREENSHOTS}/chat-doubtful-${page.browser}.png`);
  const press = (label: string) =>
    `[...document.querySelectorAll('.doubtful')][0].querySelectorAll('button').forEach((button) => button.textContent === ${js(label)} && button.click())`;
  await page.evaluate(press('Send again'));
  await until(page, `${isSeen(one)} && ${DOUBTFUL}.length === 1`);
  await page.evaluate(press('Discard'));
  await until(page, `${DOUBTFUL}.length === 0 && ${OUTBOX}.length === 0`);
  expect([one, two, unsent].map(count)).toEqual([2, 1, 1]);
});

test('a page that was not closed, and a room that is not what it was', async () => {
  const [page, other] = [room.ann, room.bob];
  const [said, unsent] = ['Was that the bell?', 'Written in the cellar'];
  await page.evaluate(hearNothing(unsent));
  await page.evaluate(write(said));
  await until(other, isSeen(said));
  await until(page, `${OUTBOX}.length === 0`);
  await room.server.stop();
  room.server.forget('rooms.jsonl');
  await page.evaluate('unhear()');
  await room.server.start();
  for (const page of room.pages) await until(page, isSeen(unsent));
  expect(await page.evaluate(DOUBTFUL)).toEqual([`doubtful ${said}`]);
  expect([said, unsent].map(count)).toEqual([0, 1]);
});
