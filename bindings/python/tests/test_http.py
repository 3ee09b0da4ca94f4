"""The `http` scope over every version of HTTP, by independent clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import ssl
import struct
import time
from datetime import datetime

import httpx
import pytest
import websockets
import wireloom
from conftest import eventually
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from wt_client import dial, soon


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module("plain:app", "--limit-body-size", "4000000", "--static", "/static=.", "--metrics")


@pytest.fixture(scope="module", params=["HTTP/1.1", "HTTP/2"])
def client(request, server):
    with httpx.Client(
        verify=False,
        base_url=server.url,
        timeout=60,
        http1=request.param == "HTTP/1.1",
        http2=request.param == "HTTP/2",
    ) as client:
        client.version = request.param
        yield client


def journal(server, name):
    with httpx.Client(verify=False, timeout=60) as client:
        return client.get(f"{server.url}/journal?{name}").json()


def test_bodies_go_both_ways(client):
    for body in [b"", b"x", bytes(range(256)) * 4000]:
        response = client.post("/echo", content=body)
        assert (response.status_code, response.content, response.http_version) == (200, body, client.version)


def test_a_body_in_pieces(client):
    response = client.post("/echo", content=(b"%d," % number for number in range(100)))
    assert response.content == b"".join(b"%d," % number for number in range(100))


def test_the_scope(client, server):
    response = client.get("/scope", params={"a": "b c"}, headers={"X-Thing": "1"})
    assert response.status_code == 200
    scope = response.json()
    assert scope["type"] == "http"
    assert scope["http_version"] == client.version.removeprefix("HTTP/")
    assert (scope["method"], scope["scheme"]) == ("GET", "https")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/scope", "/scope", "a=b+c")
    assert ["x-thing", "1"] in scope["headers"]
    assert ["host", f"127.0.0.1:{server.port}"] in scope["headers"]
    assert scope["client"][0] == "127.0.0.1" and scope["server"] == ["127.0.0.1", server.port]
    assert scope["state"] == {"born": "here"}
    assert scope["asgi"]["version"] == "3.0"
    assert {"http.response.trailers", "http.response.pathsend"} <= set(scope["extensions"])


def test_paths_are_decoded(server):
    with socket.create_connection(("127.0.0.1", server.port)) as plain, _tls(plain) as tls:
        tls.sendall(b"GET /sc%6Fpe?%20 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = _all(tls).partition(b"\r\n\r\n")
    scope = json.loads(body)
    assert head.startswith(b"HTTP/1.1 200")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/scope", "/sc%6Fpe", "%20")


def test_early_hints(server):
    with socket.create_connection(("127.0.0.1", server.port)) as plain, _tls(plain) as tls:
        tls.sendall(
            b"GET /hints HTTP/1.1\r\nHost: x\r\n\r\nGET /hints HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        responses = [_response(piece) for piece in _all(tls).replace(b"hinted", b"").split(b"\r\n\r\n")[:-1]]
    first, second = "</a.css>; rel=preload </b.js>; rel=preload", "</c.png>; rel=preload"
    assert responses == [("103", first), ("103", second), ("200", "")] * 2

    async def over_http3():
        async with dial(server) as client:
            headers, body = await client.fetch("/hints")
            links = [[value for name, value in head if name == b"link"] for head in client.interim]
            assert (headers[b":status"], body) == (b"200", b"hinted")
            assert links == [[b"</a.css>; rel=preload", b"</b.js>; rel=preload"], [b"</c.png>; rel=preload"]]

    asyncio.run(asyncio.wait_for(over_http3(), 120))
    with httpx.Client(verify=False, timeout=60, http1=False, http2=True) as client:
        assert "early hints cannot be sent here" in client.get(f"{server.url}/hints").text
    # And 1.0 has no interim responses.
    with socket.create_connection(("127.0.0.1", server.port)) as plain, _tls(plain) as tls:
        tls.sendall(b"GET /hints HTTP/1.0\r\nHost: x\r\n\r\n")
        assert b" 200 " in _all(tls).split(b"\r\n")[0]


def _response(head):
    """The status and the links."""
    lines = head.decode().split("\r\n")
    return lines[0].split()[1], " ".join(line[6:] for line in lines[1:] if line.startswith("link: "))


def test_streams_arrive_piece_by_piece(client):
    with client.stream("GET", "/stream") as response:
        assert b"".join(response.iter_bytes()) == b"0\n1\n2\n3\n4\n"


def test_a_large_response(client):
    response = client.get("/big?20000000")
    assert len(response.content) == 20_000_000
    assert response.content[:512] == bytes(range(256)) * 2


def test_head_has_no_body(client):
    response = client.head("/echo")
    assert (response.status_code, response.content) == (200, b"")
    response = client.head("/big?1000")
    assert (response.headers["content-length"], response.content) == ("1000", b"")
    assert client.get("/echo").status_code == 200


def test_files_by_path(client):
    response = client.get("/file")
    with open(__file__.replace("test_http.py", "apps/plain.py"), "rb") as file:
        content = file.read()
    assert response.content == content
    assert response.headers["content-length"] == str(len(content))
    response = client.head("/file")
    assert (response.headers["content-length"], response.content) == (str(len(content)), b"")


def test_static_files(client):
    assert client.get("/static/plain.py").content == client.get("/file").content
    assert client.get("/static/missing").status_code == 404
    for outside in ["/static/../conftest.py", "/static/%2e%2e/conftest.py", "/static/..%2fconftest.py"]:
        assert client.get(outside).status_code == 404, outside


def test_metrics(client):
    client.get("/echo")
    text = client.get("/metrics").text
    assert 'wireloom_responses_total{class="2xx"} ' in text
    assert "wireloom_calls_active " in text


def test_the_limit_of_bodies(server):
    with socket.create_connection(("127.0.0.1", server.port)) as plain, _tls(plain) as tls:
        # Announced: refused before anything was sent.
        tls.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4000001\r\nExpect: 100-continue\r\n\r\n")
        assert tls.recv(1000).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", server.port)) as plain, _tls(plain) as tls:
        # Not announced, so noticed on the way.
        tls.sendall(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3d0901\r\n" + bytes(4_000_001)
        )
        assert tls.recv(1000).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/raise", 500),
        ("/nothing", 500),
        ("/half", 500),
        ("/status", 500),
        ("/status-text", 500),
        ("/body-first", 500),
        ("/text-body", 500),
        ("/bad-header", 500),
        ("/bad-headers", 500),
        ("/no-dict", 500),
        ("/unknown", 500),
        ("/twice", 500),
        ("/too-long", 500),
        ("/after-end", 200),
    ],
)
def test_faults_of_the_application(client, path, status):
    assert client.get(path).status_code == status
    assert client.get("/echo").status_code == 200, "the server goes on"


@pytest.mark.parametrize("path", ["/raise-late", "/too-short"])
def test_what_breaks_off_does_not_look_complete(client, path):
    try:
        response = client.get(path)
    except httpx.HTTPError:
        pass
    else:
        assert response.status_code == 500, response.content
    assert client.get("/echo").status_code == 200


def test_huge_headers_break_nothing(client):
    try:
        assert len(client.get("/huge-header").headers["x"]) == 300_000
    except httpx.HTTPError:
        # The client may have a limit; the server goes on.
        assert client.get("/echo").status_code == 200


def test_a_client_that_leaves_is_told(server):
    with pytest.raises(httpx.ReadTimeout), httpx.Client(verify=False, timeout=1.0) as client:
        client.get(f"{server.url}/wait")
    eventually(lambda: journal(server, "wait")["events"] == ["waiting", "http.disconnect"], "the disconnect")


def test_after_the_response_comes_a_disconnect(client, server):
    assert client.get("/after").content == b"done"
    eventually(lambda: "http.disconnect" in journal(server, "after")["events"], "the disconnect")


def test_a_coroutine_that_never_has_to_wait_lets_others_run(client):
    assert client.get("/spin").text == "spinning"
    assert client.get("/echo").status_code == 200
    assert client.get("/stop").text == "stopped"


def test_split_cookies_are_one_field(server):
    with httpx.Client(verify=False, timeout=60, http1=False, http2=True) as client:
        headers = [("cookie", "a=1"), ("x-other", "1"), ("cookie", "b=2")]
        fields = client.get(f"{server.url}/scope", headers=headers).json()["headers"]
    assert [value for name, value in fields if name == "cookie"] == ["a=1; b=2"]
    assert ["x-other", "1"] in fields


def test_what_send_returns_may_become_a_task(client):
    assert client.get("/tasks").text == "x" * 200


def test_trailers(server):
    with socket.create_connection(("127.0.0.1", server.port)) as plain, _tls(plain) as tls:
        tls.sendall(b"GET /trailers HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: close\r\n\r\n")
        answer = _all(tls)
    assert b"content" in answer and answer.lower().endswith(b"0\r\nx-sum: 42\r\n\r\n")


@pytest.mark.parametrize("head", ["Content-Length: 100\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\nzz\r\n"])
def test_an_upload_that_is_broken_off_leaves_nothing(server, client, head):
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as plain, _tls(plain) as tls:
            tls.sendall(f"POST /echo HTTP/1.1\r\nHost: x\r\n{head}".encode())
    eventually(lambda: "wireloom_calls_active 0" in client.get("/metrics").text, "an end of all calls")


def test_expect_continue(server):
    with socket.create_connection(("127.0.0.1", server.port)) as plain, _tls(plain) as tls:
        tls.sendall(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert tls.recv(1000).startswith(b"HTTP/1.1 100")
        tls.sendall(b"hello")
        assert _all(tls).endswith(b"hello")


def test_http3(server):
    async def main():
        async with dial(server) as client:
            headers, body = await client.fetch("/echo", "POST", b"over HTTP/3")
            assert (headers[b":status"], body) == (b"200", b"over HTTP/3")
            headers, body = await client.fetch("/scope?q")
            scope = json.loads(body)
            assert (scope["http_version"], scope["scheme"], scope["query_string"]) == ("3", "https", "q")
            assert ["host", f"127.0.0.1:{server.port}"] in scope["headers"]
            headers, body = await client.fetch("/big?3000000")
            assert len(body) == 3_000_000
            headers, body = await client.fetch("/raise")
            assert headers[b":status"] == b"500"
            headers, body = await client.fetch("/echo", "HEAD")
            assert (headers[b":status"], body) == (b"200", b"")
            many = await soon(asyncio.gather(*(client.fetch("/echo", "POST", b"%d" % n) for n in range(50))))
            assert [body for _, body in many] == [b"%d" % n for n in range(50)]

    asyncio.run(main())


def test_a_header_that_is_too_large_is_431_in_each_version(serve):
    server = serve("plain:app", "--limit-header-size", "8192")
    for is_http2 in (False, True):
        with httpx.Client(verify=False, timeout=60, http1=not is_http2, http2=is_http2) as client:
            assert client.get(f"{server.url}/echo", headers={"x": "y" * 4000}).status_code == 200
            assert client.get(f"{server.url}/echo", headers={"x": "y" * 9000}).status_code == 431

    async def over_http3():
        async with dial(server) as client:
            for path, status in (("/echo", b"200"), ("/echo?" + "y" * 9000, b"431")):
                headers, _ = await client.fetch(path)
                assert headers[b":status"] == status

    asyncio.run(over_http3())


def test_alt_svc_leads_to_http3(client, server):
    assert client.get("/echo").headers["alt-svc"] == f'h3=":{server.port}"; ma=86400'


def test_niquests_goes_over_to_http3(server):
    import niquests

    with niquests.Session() as session:
        versions = [session.get(f"{server.url}/echo", verify=False).http_version for _ in range(3)]
    assert versions[0] in (11, 20)
    assert set(versions) <= {11, 20, 30}


def test_many_requests_on_one_connection(server):
    async def main():
        limits = httpx.Limits(max_connections=4)
        async with httpx.AsyncClient(verify=False, http2=True, limits=limits, timeout=60) as client:
            answers = await asyncio.gather(
                *(client.post(f"{server.url}/echo", content=b"%d" % number) for number in range(300))
            )
        assert [answer.content for answer in answers] == [b"%d" % number for number in range(300)]

    asyncio.run(main())


def test_alt_svc_of_a_port_that_leads_here(serve):
    server = serve("plain:app", "--alt-svc-port", "443")
    with httpx.Client(verify=False, timeout=60) as client:
        assert client.get(f"{server.url}/echo").headers["alt-svc"] == 'h3=":443"; ma=86400'


def test_the_access_log(client, server):
    client.get("/scope?logged")
    server.wait_for(r'127\.0\.0\.1:\d+ "GET /scope HTTP/[\d.]+" 200 \d+ [\d.]+ms')


def test_the_access_log_in_json(serve):
    server = serve("plain:app", "--access-log-format", "json")
    with httpx.Client(verify=False, http2=True, timeout=60) as client:
        client.get(f"{server.url}/scope?a=1&b=%22", headers={"user-agent": 'an "agent" \\ of \xfc'.encode()})
    (line,) = server.wait_for(r"^\{.*\}$")
    entry = json.loads(line[0])
    assert entry.pop("client").startswith("127.0.0.1:") and entry.pop("bytes") > 0 and entry.pop("ms") > 0
    assert abs(datetime.fromisoformat(entry.pop("time")).timestamp() - time.time()) < 600
    assert entry == {
        **{"method": "GET", "scheme": "https", "path": "/scope", "query": "a=1&b=%22", "protocol": "HTTP/2"},
        **{"user_agent": 'an "agent" \\ of \xfc', "status": 200},
    }


def test_paths_that_are_not_in_the_access_log(serve):
    arguments = ["--access-log-exclude", "/echo", "--access-log-exclude", "/sc*", "--metrics"]
    server = serve("plain:app", *arguments, "--access-log-exclude", "/metrics", tls=False)
    with httpx.Client(timeout=60, base_url=server.url) as client:
        for path in ("/echo", "/echo?query", "/scope", "/metrics", "/pid", "/echo/other"):
            client.get(path)
    server.wait_for('"GET /echo/other ')
    assert [line.split()[2] for line in server.lines if '"GET ' in line] == ["/pid", "/echo/other"]


@pytest.mark.parametrize("loop", ["wireloom", "asyncio"])
def test_the_access_log_as_a_logger(loop):
    records = []

    class Kept(logging.Handler):
        def emit(self, record):
            records.append(record)

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 404})
        await send({"type": "http.response.body", "body": b"no"})

    async def main():
        serving = wireloom.serving(app, port=0, lifespan="off", access_log_logger=True)
        async with serving as server, httpx.AsyncClient(timeout=60) as client:
            await client.get(f"{server.url}/path?query")
            while not records:
                await asyncio.sleep(0.01)
            await client.get(f"{server.url}/last")

    logger = logging.getLogger("wireloom.access")
    kept = Kept()
    logger.addHandler(kept)
    logger.setLevel("INFO")
    try:
        with asyncio.Runner(loop_factory=wireloom.new_event_loop if loop == "wireloom" else None) as runner:
            runner.run(asyncio.wait_for(main(), 60))
    finally:
        logger.removeHandler(kept)
    first, last = records
    assert (first.method, first.path, first.query, first.status, first.bytes) == ("GET", "/path", "query", 404, 2)
    assert '"GET /path HTTP/1.1" 404 2 ' in first.getMessage() and first.client.startswith("127.0.0.1:")
    assert last.path == "/last"


def _tls(sock, protocols=()):
    context = ssl.create_default_context()
    context.set_alpn_protocols(protocols)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname="localhost")


def _all(sock):
    sock.settimeout(60)
    content = b""
    while data := sock.recv(65536):
        content += data
    return content


def test_what_is_asked_of_the_loop_while_a_task_is_made_happens(serve):
    server = serve("interrupting:app")
    with httpx.Client(verify=False, base_url=server.url, timeout=60) as client:
        for _ in range(3):
            counts = client.get("/").json()
            assert counts["ran"] >= counts["asked"] > 0


def test_a_scope_is_its_own_request_s(client):
    for _ in range(2):
        assert client.get("/marks").json() == ["new"] * 4


def test_authority_takes_the_place_of_host(server):
    with socket.create_connection(("127.0.0.1", server.port)) as plain, _tls(plain, ["h2"]) as tls:
        h2 = H2Connection()
        h2.initiate_connection()
        authority = f"127.0.0.1:{server.port}"
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", "/scope")]
        h2.send_headers(1, [*fields, ("x-first", "1"), ("host", authority), ("x-last", "1")], end_stream=True)
        content, events = b"", []
        while not any(isinstance(event, StreamEnded) for event in events):
            tls.sendall(h2.data_to_send())
            events = h2.receive_data(tls.recv(65536))
            content += b"".join(event.data for event in events if isinstance(event, DataReceived))
    assert json.loads(content)["headers"] == [["host", authority], ["x-first", "1"], ["x-last", "1"]]


def test_an_upload_that_is_broken_off_breaks_its_response_off(serve):
    server = serve("plain:app")
    with socket.create_connection(("127.0.0.1", server.port)) as plain, _tls(plain) as tls:
        tls.sendall(b"POST /answer-first HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = b""
        while b"begun" not in answer:
            answer += tls.recv(4096)
        tls.sendall(b"zz\r\n")
        rest = _all(tls)
    assert rest.strip() == b"" and not rest.endswith(b"0\r\n\r\n"), "it must not look complete"


def test_a_response_that_nobody_takes_leaves_nothing(serve):
    """Clients leave in the moment in which the application's thread answers, and Tokio's has not taken it."""
    server = serve("plain:app", "--metrics", "--no-access-log", "--loop", "asyncio", tls=False)
    for number in range(2000):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(b"GET /half-body HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(number % 40 * 1e-5)
    with httpx.Client(timeout=60, base_url=server.url) as client:
        eventually(lambda: "wireloom_calls_active 0" in client.get("/metrics").text, "an end of all calls")


def test_what_the_server_itself_answers_is_an_answer(serve, tmp_path):
    """It has the fields that all have, and is in the log."""
    (tmp_path / "file.txt").write_text("content")
    server = serve(
        *("plain:app", "--metrics", "--static", f"/static={tmp_path}", "--limit-body-size", "10"),
        *("--static-path-expires", "60", "--health-check-path", "/health", "--limit-concurrency", "1"),
        *("--header", "x-all: 1", "--access-log-format", "%(path)s %(status)s %(bytes)s"),
        tls=False,
    )
    with httpx.Client(timeout=60, base_url=server.url) as client:
        answers = [
            client.get("/static/file.txt"),
            client.get("/static/missing"),
            client.get("/metrics"),
            client.post("/echo", content=b"more than that"),
            client.get("/echo"),
        ]
        assert [answer.status_code for answer in answers] == [200, 404, 200, 413, 200]
        assert [answer.headers.get("x-all") for answer in answers] == ["1"] * 5
        assert [answer.headers.get("cache-control") for answer in answers] == ["max-age=60", *[None] * 4]
        fresh = {"if-modified-since": answers[0].headers["last-modified"]}
        kept = client.get("/static/file.txt", headers=fresh)
        assert (kept.status_code, kept.headers["cache-control"]) == (304, "max-age=60")
        with socket.create_connection(("127.0.0.1", server.port)) as slow:

            def is_busy():
                # Again, if a question was there first: one after another they are answered.
                slow.sendall(b"GET /slow?600 HTTP/1.1\r\nHost: x\r\n\r\n")
                return client.get("/echo").status_code == 503

            eventually(is_busy, "the limit")
            healthy = client.get("/health")
            assert (healthy.status_code, healthy.text, healthy.headers["x-all"]) == (200, "OK", "1")
            assert client.head("/health").status_code == 200
            assert client.post("/health").status_code == 503
    for line in ["/static/file.txt 200 7", "/static/missing 404 0", r"/metrics 200 \d+", "/echo 413 17", "/echo 200 0"]:
        server.wait_for(f"^{line}$")


@pytest.mark.parametrize("workers", [1, 2])
def test_metrics_on_a_port_of_their_own(serve, workers):
    server = serve("plain:app", "--metrics-port", "0", "--workers", str(workers), wait=workers)
    where = server.wait_for(r"metrics on (http://127\.0\.0\.1:\d+)/metrics")[0][1]
    with httpx.Client(verify=False, timeout=60) as client:
        assert client.get(f"{server.url}/metrics").status_code == 404
        assert "wireloom_calls_active" in client.get(f"{where}/metrics").text
        assert client.get(f"{where}/echo").status_code == 404
        assert client.post(f"{where}/metrics").status_code == 405


@pytest.mark.parametrize("outside", [None, 443])
def test_plain_http_is_led_to_https(serve, outside):
    given = [] if outside is None else ["--alt-svc-port", str(outside)]
    server = serve("plain:app", "--redirect-port", "0", "--host", "127.0.0.1", "--host", "::1", *given)
    plain = [line[1] for line in server.wait_for(r"leading (http://\S+) to HTTPS", count=2)]
    with httpx.Client(verify=False, timeout=60) as client:
        for url in plain:
            answer = client.post(f"{url}/echo?a=1", content=b"body")
            assert answer.status_code == 308
            host = url.removeprefix("http://").rpartition(":")[0]
            expected = f"https://{host}/echo?a=1" if outside else f"https://{host}:{server.port}/echo?a=1"
            assert answer.headers["location"] == expected
            assert "alt-svc" not in answer.headers
        if outside is None:
            assert client.post(f"{plain[0]}/echo", content=b"body", follow_redirects=True).content == b"body"
    with socket.create_connection(("127.0.0.1", int(plain[0].rpartition(":")[2]))) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert _all(sock).startswith(b"HTTP/1.0 400 ")


def test_who_does_not_wait_for_the_answer_is_in_the_log(serve):
    server = serve("plain:app", tls=False)
    with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=1.0) as client:
        client.get(f"{server.url}/wait")
    server.wait_for('"GET /wait HTTP/1.1" 499 0 ')


@pytest.mark.parametrize("leaves", [False, True])
def test_all_who_wait_to_send_go_on(serve, leaves):
    server = serve("plain:app", tls=False)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET /crowd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        server.wait_for("^sending")
        if not leaves:
            assert len(_all(sock)) > 3 * (8 << 20)
    server.wait_for(re.escape(f"sent: {[leaves] * 3}"))


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
def test_who_gives_up_waiting_takes_nobody_s_news(serve, loop):
    server = serve("plain:app", "--loop", loop, tls=False)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST /watched HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        for count in [1, 2]:
            server.wait_for("^watching", count=count)
            sock.sendall(b"x")
            server.wait_for("^watched: http.request", count=count)
        server.wait_for("^watching", count=3)
    server.wait_for("^watched: http.disconnect")


def test_a_body_that_is_not_read_holds_up_no_connection(serve):
    """Its application answers, and never ends."""
    server = serve("plain:app")
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        _tls(plain) as tls,
        # It goes on, or is over at once where hyper had not read all of the body.
        contextlib.suppress(ConnectionError, ssl.SSLEOFError),
    ):
        tls.sendall(b"POST /background HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
        tls.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        _all(tls)
    with httpx.Client(verify=False, timeout=60, http1=False, http2=True) as client:
        for _ in range(40):
            assert client.post(f"{server.url}/background", content=bytes(100_000)).text == "done"


def test_a_response_without_a_body_ends_what_streams_one(client, server):
    before = len(journal(server, "endless")["events"])
    assert client.head("/endless").status_code == 200
    events = eventually(lambda: journal(server, "endless")["events"][before:], "the end of the stream")
    assert events == ["http.disconnect"]
    assert client.get("/echo").status_code == 200


def test_after_the_limit_of_bodies_nothing_looks_whole(serve):
    server = serve("plain:app", "--limit-body-size", "10", tls=False)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST /answer-and-read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = b""
        while b"begun" not in answer:
            answer += sock.recv(4096)
        sock.sendall(b"14\r\n" + bytes(20))
        assert not _all(sock).endswith(b"0\r\n\r\n"), "it must not look complete"
    with httpx.Client(timeout=60) as client:
        events = client.get(f"{server.url}/journal?answer-and-read").json()["events"]
    assert events == ["http.disconnect"] * 2


def test_faults_that_no_client_waits_for_are_in_the_log(serve):
    server = serve("plain:app", tls=False)
    for count, path in enumerate([b"/fail-of-leaving", b"/fail-late"], 1):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            server.wait_for("^failing", count=count)
    server.wait_for("on purpose, late")
    assert "of leaving" not in server.output, "which is what the client did, and no fault"


def test_calls_that_have_ended_do_not_count(serve):
    """Whatever the application keeps of them."""
    server = serve("plain:app", "--limit-concurrency", "5")

    async def main():
        async with httpx.AsyncClient(verify=False, timeout=60) as client:
            for _ in range(10):
                assert (await client.get(f"{server.url}/keep")).status_code == 200
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for _ in range(10):
            async with websockets.connect(f"wss://127.0.0.1:{server.port}/keep", ssl=context) as ws:
                await ws.send("x")
                assert await ws.recv() == "x"
        async with dial(server) as client:
            for _ in range(10):
                session, headers = await client.session("/keep?forget")
                assert headers[b":status"] == b"200"
                session.close(0, "")

    asyncio.run(asyncio.wait_for(main(), 120))


def test_no_keep_alive(serve):
    server = serve("plain:app", "--keep-alive", "0")
    with socket.create_connection(("127.0.0.1", server.port)) as plain, _tls(plain) as tls:
        # The time for a header is another.
        tls.sendall(b"GET /pid HTTP/1.1\r\n")
        tls.sendall(b"Host: x\r\n\r\n")
        answer = _all(tls)
    assert answer.startswith(b"HTTP/1.1 200") and b"\r\nconnection: close\r\n" in answer
    with httpx.Client(verify=False, timeout=60, http1=False, http2=True) as client:
        for _ in range(2):
            answer = client.get(f"{server.url}/pid")
            assert (answer.status_code, "connection" in answer.headers) == (200, False)


def test_a_header_that_is_given_twice_is_sent_twice(serve):
    server = serve("plain:app", "--header", "x-a: 1", "--header", "x-a: 2", "--header", "content-type: mine", tls=False)
    with httpx.Client(timeout=60, base_url=server.url) as client:
        assert client.get("/pid").headers.get_list("x-a") == ["1", "2"]
        assert client.get("/file").headers.get_list("content-type") == ["text/x-python"]


@pytest.mark.parametrize("prefix", ["/static", ""])
def test_folders_of_static_files_redirect_to_themselves(serve, tmp_path, prefix):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.html").write_text("index")
    server = serve("plain:app", "--static", f"{prefix}/={tmp_path}", tls=False)
    with httpx.Client(timeout=60, base_url=server.url, follow_redirects=True) as client:
        for path in [f"{prefix}/docs", f"{server.url}{prefix}//docs"]:
            answer = client.get(path)
            assert (answer.text, answer.url.path) == ("index", f"{prefix}/docs/")
            assert answer.history[0].headers["location"] == f"{prefix}/docs/"
