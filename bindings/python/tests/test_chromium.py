"""A real browser: a page that is served by the application opens a session of it."""

from __future__ import annotations

import json
import shutil
import subprocess

import httpx
from conftest import eventually

PAGE = """<!doctype html><script type=module>
const told = {};
try {
  const hash = Uint8Array.from("HASH".match(/../g), (x) => parseInt(x, 16));
  const url = "https://127.0.0.1:PORT/browser?page";
  const options = { serverCertificateHashes: [{ algorithm: "sha-256", value: hash }], protocols: ["other", "chat"] };
  const wt = new WebTransport(url, options);
  await wt.ready;
  told.protocol = wt.protocol;
  const read = async (readable) => new Response(readable).text();
  const { readable, writable } = await wt.createBidirectionalStream();
  const writer = writable.getWriter();
  await writer.write(new TextEncoder().encode("over a stream"));
  await writer.close();
  told.stream = await read(readable);
  const incoming = wt.incomingUnidirectionalStreams.getReader();
  told.greeting = await read((await incoming.read()).value);
  const datagrams = wt.datagrams;
  const out = (datagrams.createWritable ? datagrams.createWritable() : datagrams.writable).getWriter();
  const back = datagrams.readable.getReader();
  // Datagrams may be lost.
  const sending = setInterval(() => out.write(new TextEncoder().encode("a datagram")), 50);
  told.datagram = new TextDecoder().decode((await back.read()).value);
  clearInterval(sending);
  wt.close({ closeCode: 77, reason: "bye" });
  const refused = new WebTransport(url.replace("/browser", "/status/404"), options);
  told.refused = await refused.ready.then(() => "accepted", () => "refused");
} catch (error) {
  told.error = String(error);
}
await fetch("/told", { method: "POST", body: JSON.stringify(told) });
</script>"""


def test_a_page_in_chromium(serve, tmp_path):
    assert shutil.which("chromium"), "`cargo xtask setup` installs it"
    # The page comes over plain HTTP from localhost, which browsers take for secure.
    pages = serve("browser:app", tls=False)
    server = serve("browser:app", "--origin", f"http://localhost:{pages.port}")
    page = PAGE.replace("HASH", server.hash).replace("PORT", str(server.port))
    httpx.post(f"{pages.url}/page", content=page, timeout=60)
    browser = subprocess.Popen(
        [
            *["setpriv", "--pdeathsig", "KILL", "--", "chromium", "--headless", "--no-sandbox", "--disable-gpu"],
            *["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
            *["--disable-dev-shm-usage", "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}"],
            f"http://localhost:{pages.port}/page",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        told = eventually(lambda: json.loads(httpx.get(f"{pages.url}/told", timeout=60).text), "the page's report")
    finally:
        browser.terminate()
        browser.wait()
    assert told == {
        "protocol": "chat",
        "stream": "over a stream",
        "greeting": "from the server",
        "datagram": "a datagram",
        "refused": "refused",
    }
    with httpx.Client(verify=False, timeout=60) as client:
        events = eventually(
            lambda: [e for e in client.get(f"{server.url}/events").json() if e["type"] == "webtransport.disconnect"]
        )
    assert events[0] == {"type": "webtransport.disconnect", "code": 77, "reason": "bye", "clean": True}
