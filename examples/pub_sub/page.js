// The page of the live chart: subscribes, and draws what comes.
import { Chart, hueOf, Points } from "/chart.js";
import { Client } from "/wireloom.min.js";

const SENSORS = 8;
/** What is drawn is so much behind what came: then it moves evenly though messages come in bursts. */
const BEHIND_MS = 120;
/** By how much the chart may run faster or slower to be right again, and how wrong it is when it jumps instead. */
const HURRY = 0.05;
const LOST_MS = 1000;

const $ = (id) => document.getElementById(id);
const points = new Points(SENSORS, 20 * 500 * 2);
const chart = new Chart($("chart"));
const counts = { points: 0, messages: 0, frames: 0 };
/** What the page's clock shows when the publisher's is at 0, as far as the fastest message has told. */
let offset = Infinity;
/** The same for what is drawn, which follows without a jerk; `null`: not known yet. */
let shown = null;
/** When the last frame was. */
let before = 0;
let span = 8000;
let missed = 0;
let subscription = null;
let position = null;
let isBegun = false;
const values = new Float32Array(SENSORS);

const legend = Array.from({ length: SENSORS }, (_, n) => {
  const value = document.createElement("span");
  value.style.setProperty("--hue", hueOf(n));
  $("legend").append(value);
  return value;
});

const connect = () => fetch("/connect", { cache: "no-store" }).then((response) => response.json());
const { port } = await connect();
const client = new Client(`https://${location.hostname === "localhost" ? "127.0.0.1" : location.hostname}:${port}/messages`, {
  certificateHashes: async () => (await connect()).certificates,
  webSocketUrl: new URL("/messages", location.href).href,
  storage: sessionStorage,
  // Hundreds of messages a second: silence means something.
  silenceMs: 2000,
  patienceMs: 5000,
  returnMs: 5000,
  backoff: { maxMs: 5000 },
});
globalThis.chatClient = client; // for the curious, and for tests
client.onState(({ status, transport }) => {
  const names = { webtransport: "WebTransport", websocket: "WebSocket", connecting: "connecting…", closed: "closed" };
  $("transport").dataset.state = transport ?? status;
  $("transport").lastElementChild.textContent = names[transport ?? status];
});

function subscribe() {
  let last = null;
  subscription = client.topic("threads").subscribe({
    // The last seconds at once; after an absence what was missed.
    since: position,
    history: { ageMs: 4000 },
    onMessage: ({ data, offset: number }) => {
      const view = new DataView(data.bytes.buffer, data.bytes.byteOffset, data.bytes.byteLength);
      const time = view.getFloat64(0, true);
      // A publisher that was started again begins anew.
      if (time < points.newest - 1000) {
        points.clear();
        chart.clear();
        offset = Infinity;
        shown = null;
        isBegun = subscription.isLive;
      }
      offset = Math.min(offset, performance.now() - time);
      for (let n = 0; n < SENSORS; n++) values[n] = view.getFloat32(8 + 4 * n, true);
      points.add(time, values);
      if (last !== null && number > last + 1) missed += number - last - 1;
      last = number;
      counts.messages++;
      counts.points += SENSORS;
      received.push(number);
    },
    onGap: () => {
      last = null;
      missed++;
    },
    // History tells little of how far the publisher's clock is: it is old when it comes.
    onLive: () => (isBegun = true),
  });
}

/** The offsets that came, for tests: each once, in order. */
const received = (globalThis.received = []);
/**
 * The frames, for tests: its time, up to which of the publisher's times it was drawn, how long that took, how old the newest point was
 * that it shows, in ms, and how many it shows.
 */
const drawn = (globalThis.drawn = []);

$("pause").addEventListener("click", () => {
  const paused = subscription !== null;
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").textContent = paused ? "Subscribe" : "Unsubscribe";
  if (!paused) return subscribe();
  ({ position } = subscription);
  subscription.unsubscribe();
  subscription = null;
});
$("window").addEventListener("input", () => {
  span = $("window").value * 1000;
  $("seconds").textContent = `${$("window").value} s`;
});

/** Draws what the time of the frame says, whatever came since the last. */
function frame(at) {
  requestAnimationFrame(frame);
  counts.frames++;
  const passed = Math.min(at - before, 100);
  before = at;
  // Forgets slowly what the fastest message told: clocks drift.
  offset += passed * 1e-4;
  if (!subscription || !isBegun || points.count === 0) return;
  if (shown === null || Math.abs(offset - shown) > LOST_MS) shown = offset;
  else shown += Math.max(-HURRY * passed, Math.min(offset - shown, HURRY * passed));
  const end = at - shown - BEHIND_MS;
  const start = performance.now();
  chart.draw(points, SENSORS, end, span);
  const now = performance.now();
  const shows = SENSORS * (points.before(end) - points.before(end - span));
  drawn.push({ at, end, took: now - start, age: now - offset - Math.min(points.newest, end), points: shows });
  if (drawn.length > 1e4) drawn.splice(0, 5e3);
}
requestAnimationFrame(frame);

const number = new Intl.NumberFormat();
let since = performance.now();
setInterval(() => {
  const seconds = (performance.now() - since) / 1000;
  since = performance.now();
  for (const name of ["points", "messages", "frames"]) {
    $(name).textContent = number.format(Math.round(counts[name] / seconds));
    counts[name] = 0;
  }
  if (points.count > 0) {
    const behind = performance.now() - offset - points.newest;
    $("delay").textContent = behind > 1000 ? `${(behind / 1000).toFixed(1)} s` : `${Math.max(0, Math.round(behind))} ms`;
    for (const [n, value] of legend.entries()) value.textContent = points.last(n).toFixed(2);
  }
  $("missed").textContent = number.format(missed);
  if (received.length > 1e6) received.splice(0, 5e5);
}, 1000);

subscribe();
