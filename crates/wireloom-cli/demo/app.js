// The connection: options, what was negotiated, close. Messages are in messages.js, measurements in measure.js.

import { Measurements } from "./measure.js";
import { Messages } from "./messages.js";

const $ = (id) => document.getElementById(id);
const ui = {
  url: $("url"), protocols: $("protocols"), hashes: $("hashes"), connect: $("connect"), state: $("state"),
  advice: $("advice"), facts: $("facts"), close: $("close"),
};
const needOpen = ["close", "send-bidi", "send-uni", "send-datagram", "throughput"].map($);

let session = null;
const messages = new Messages($("log"));
const measurements = new Measurements();

function show(state, text) {
  ui.state.dataset.state = state;
  ui.state.textContent = text;
  ui.connect.disabled = state === "busy" || state === "open";
  for (const button of needOpen) button.disabled = state !== "open";
}

function advise(text, calm = false) {
  ui.advice.hidden = !text;
  ui.advice.textContent = text ?? "";
  ui.advice.classList.toggle("calm", calm);
}

function facts(list) {
  // What a browser does not tell is left out.
  ui.facts.replaceChildren(...list.filter(([, value]) => value).flatMap(([name, value]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
}

function whatIsMissing() {
  if (!isSecureContext) {
    return ["Browsers offer WebTransport on secure pages only.",
      `Open this page as http://localhost:${location.port || 80}/ on the machine that serves it, or over https with a certificate that the browser trusts.`];
  }
  if (!("WebTransport" in window)) {
    return ["This browser has no WebTransport.",
      "It is in Chrome and Edge since version 97, in Firefox since 114 and in Safari since 26.4: update this browser, or open the page in one of those.",
      "In an older Firefox, about:config has the switch network.webtransport.enabled."];
  }
  return null;
}

function parseHashes(text) {
  return text.split(/[\s,]+/).filter(Boolean).map((word) => {
    const hex = word.replaceAll(":", "");
    if (!/^[0-9a-f]{64}$/i.test(hex)) throw new Error(`“${word.slice(0, 20)}” is no SHA-256: 64 hexadecimal digits are.`);
    return Uint8Array.from(hex.match(/../g), (byte) => parseInt(byte, 16));
  });
}

/** The server's certificate rotates: its hashes are asked for anew unless the user typed others. */
async function refreshHashes() {
  if (document.body.dataset.pin !== "true" || ui.hashes.dataset.edited) return;
  const { current, next } = await (await fetch("/certificate-hashes", { cache: "no-store" })).json();
  ui.hashes.value = [current, next].filter(Boolean).join("\n");
}

function connectFailed(error) {
  show("failed", "failed");
  advise(`The session could not be opened: ${error.message || error}\n`
    + "Is the server running? Is UDP let through to that port? Is the certificate's hash the current one? "
    + "Is this page's origin allowed (--allow-origin)? `wireloom probe URL` says which it is. "
    + "After many failures browsers slow a page down: reload it.");
}

async function connect() {
  advise(null);
  facts([]);
  show("busy", "connecting");
  const started = performance.now();
  let transport;
  try {
    await refreshHashes();
    const hashes = parseHashes(ui.hashes.value);
    const protocols = ui.protocols.value.split(/[\s,]+/).filter(Boolean);
    transport = new WebTransport(ui.url.value.trim(), {
      ...(hashes.length && { serverCertificateHashes: hashes.map((value) => ({ algorithm: "sha-256", value })) }),
      ...(protocols.length && { protocols }),
    });
    // Also rejected where `ready` is, which reports it.
    transport.closed.catch(() => {});
    await transport.ready;
  } catch (error) {
    connectFailed(error);
    return;
  }
  session = transport;
  const handshake = performance.now() - started;
  show("open", "connected");
  const negotiated = () => facts([
    ["handshake", `${handshake.toFixed(1)} ms`],
    ["subprotocol", "protocol" in transport ? transport.protocol || "none" : "this browser offers none"],
    ["reliability", transport.reliability],
    ["datagrams", `up to ${transport.datagrams.maxDatagramSize} bytes`],
    ["congestion control", transport.congestionControl],
    ["opened", new Date().toLocaleTimeString()],
  ]);
  negotiated();
  // It grows as the path's MTU is found out.
  setTimeout(() => session === transport && negotiated(), 1000);
  messages.attach(transport, measurements);
  measurements.attach(transport);
  try {
    const { closeCode = 0, reason = "" } = (await transport.closed) ?? {};
    ended(transport, "idle", "closed", `Closed with code ${closeCode}${reason ? ` and reason “${reason}”` : ""}.`);
  } catch (error) {
    ended(transport, "failed", "lost", `The connection was lost: ${error.message || error}`);
  }
}

function ended(transport, state, text, advice) {
  if (session !== transport) return;
  session = null;
  measurements.detach();
  messages.detach();
  show(state, text);
  advise(advice, state === "idle");
}

function start() {
  const missing = whatIsMissing();
  if (missing) {
    const [title, ...lines] = missing;
    const notice = $("unsupported");
    const heading = document.createElement("h2");
    heading.textContent = title;
    notice.replaceChildren(heading, ...lines.map((line) => {
      const p = document.createElement("p");
      p.textContent = line;
      return p;
    }));
    notice.hidden = false;
    show("failed", "not supported");
    ui.connect.disabled = true;
    return;
  }
  // Over https the page and the session share one port.
  ui.url.value = location.protocol === "https:" ? `${location.origin}/echo` : document.body.dataset.url;
  ui.hashes.addEventListener("input", () => { ui.hashes.dataset.edited = "yes"; });
  $("connect-form").addEventListener("submit", (event) => {
    event.preventDefault();
    connect();
  });
  $("close-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const [closeCode, reason] = [Number($("close-code").value), $("close-reason").value];
    session?.close({ closeCode, reason });
  });
  const send = (how) => (event) => {
    event.preventDefault();
    messages.send(how, $("message").value);
  };
  $("send-form").addEventListener("submit", send("bidi"));
  $("send-uni").addEventListener("click", send("uni"));
  $("send-datagram").addEventListener("click", send("datagram"));
  connect();
}

start();
