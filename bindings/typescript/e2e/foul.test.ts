// Somebody in the room whose client does as it likes: what it says of itself and of others' messages harms no page.
import { expect, test } from 'vitest';
import { until } from './browser.js';
import { MESSAGES, useRoom } from './chatroom.js';
import type { ChatRoom } from './chatroom.js';

const js = JSON.stringify;
let room: ChatRoom;
// It forgets keys at once.
useRoom((opened) => {
  room = opened;
}, '--remember', '0');

test("another's id takes no message's place", async () => {
  const say = (text: string) => `chatClient.request('say', { room: 'lobby', messages: [{ id: 'abc-1', text: ${js(text)} }] }, { timeoutMs: 60_000 }).then(() => 1)`;
  await room.ann.evaluate(say('the truth'));
  await room.bob.evaluate(say('a lie'));
  for (const page of room.pages) {
    await until(page, `${MESSAGES}.length === 2`);
    await page.reload();
    await until(page, `${MESSAGES}.length === 2`);
    expect(await page.evaluate(MESSAGES)).toEqual(['the truth', 'a lie']);
  }
});

test('who says nonsense of themselves is not there, and all others are', async () => {
  const people = `[...document.querySelectorAll('#people li')].length`;
  for (const page of room.pages) await until(page, `${people} === 2`);
  for (const info of [{}, { name: 7, user: 'x' }, { name: 'x'.repeat(900), user: 'x' }, 'x']) {
    await room.bob.evaluate(`chatClient.request('$presence/room/lobby', { join: ${js(info)} }, { timeoutMs: 60_000 }).then(() => 1)`);
    await until(room.ann, `${people} === 1`);
    await room.bob.evaluate(`chatClient.request('$presence/room/lobby', { join: { name: 'Bob', user: 'b' } }, { timeoutMs: 60_000 }).then(() => 1)`);
    await until(room.ann, `${people} === 2`);
  }
});

test('a link to a room that cannot be leads to one that can', async () => {
  const title = `document.getElementById('title').textContent`;
  await room.ann.goto(`${room.server.url}?#No%20room`);
  await until(room.ann, `document.getElementById('app')?.hidden === false && ${title} === 'lobby'`);
  await room.ann.evaluate(`void (location.hash = 'Neither')`);
  await until(room.ann, `location.hash === '#lobby' && ${title} === 'lobby'`);
  expect(await room.ann.evaluate(`localStorage.getItem('chat:rooms')`)).not.toContain('o room');
});
