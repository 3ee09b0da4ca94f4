import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { onWake } from '../src/wake.js';

const page = Object.assign(new EventTarget(), { visibilityState: 'visible' });
const network = Object.assign(new EventTarget(), { type: 'wifi', effectiveType: '4g', rtt: 50 });
const wake = vi.fn();
let stop: AbortController;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('document', page);
  vi.stubGlobal('navigator', { connection: network });
  stop = new AbortController();
  onWake(wake, stop.signal);
});
afterEach(() => {
  stop.abort();
  wake.mockClear();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** A timer of five seconds that is so late. */
function late(ms: number): void {
  vi.setSystemTime(Date.now() + ms);
  vi.advanceTimersByTime(5_000);
}

test('a machine that was asleep wakes up, a page that is hidden does not', () => {
  late(0);
  expect(wake).toHaveBeenCalledTimes(0);
  late(60_000);
  expect(wake).toHaveBeenCalledTimes(1);
  page.visibilityState = 'hidden';
  page.dispatchEvent(new Event('visibilitychange'));
  // Browsers give hidden pages one timer a minute.
  late(55_000);
  late(55_000);
  expect(wake).toHaveBeenCalledTimes(1);
  page.visibilityState = 'visible';
  page.dispatchEvent(new Event('visibilitychange'));
  expect(wake).toHaveBeenCalledTimes(2);
  late(0);
  expect(wake).toHaveBeenCalledTimes(2);
});

test('another network is a reason, another estimate of the same is none', () => {
  network.rtt = 150;
  network.dispatchEvent(new Event('change'));
  expect(wake).toHaveBeenCalledTimes(0);
  network.type = 'cellular';
  network.dispatchEvent(new Event('change'));
  network.dispatchEvent(new Event('change'));
  expect(wake).toHaveBeenCalledTimes(1);
});
