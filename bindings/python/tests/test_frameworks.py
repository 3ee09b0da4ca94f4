"""Real frameworks."""

from __future__ import annotations

import asyncio
import ssl

import httpx
import pytest
from conftest import eventually
from starlette.applications import Starlette
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from wireloom import Router
from wireloom.starlette import WebTransportRoute, with_webtransport
from wt_client import dial, soon


def websocket(server, path):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return connect(f"wss://127.0.0.1:{server.port}{path}", ssl=context, open_timeout=60)


def starlette_routes(session):
    return with_webtransport(Starlette(routes=[WebTransportRoute("/baseball", session)]))


def run(main):
    asyncio.run(asyncio.wait_for(main(), 120))


@pytest.mark.parametrize("loop", ["wireloom", "uvloop", "asyncio"])
def test_fastapi(serve, loop):
    server = serve("fastapi_app:make", "--factory", "--lifespan", "on", "--loop", loop)
    with httpx.Client(verify=False, http2=True, base_url=server.url, timeout=60) as client:
        assert client.get("/sync").json() == {"thread": True}
        assert client.get("/state").json() == {"database": "open", "task": True}
        assert client.post("/items", json={"name": "a", "price": 2}).json() == {"name": "a", "total": 4}
        assert client.post("/items", json={"name": "a"}).status_code == 422
        content = bytes(range(256)) * 8000
        answer = client.post("/upload", files={"file": ("f.bin", content)}).json()
        assert answer == {"name": "f.bin", "size": len(content), "sum": sum(content)}
        with client.stream("GET", "/events") as events:
            assert events.headers["content-type"].startswith("text/event-stream")
            assert "".join(events.iter_text()) == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert "/items" in client.get("/openapi.json").text
        assert client.get("/building/floor/1/rooms/7").json() == {"page": "7"}
        refused = client.get("/building/only/7")
        assert (refused.status_code, refused.headers["allow"]) == (405, "CONNECT")

    async def main():
        async with websocket(server, "/ws") as socket:
            await socket.send("hello")
            assert await socket.recv() == "HELLO"
        async with dial(server) as client:
            session, headers = await client.session("/live/7", (b"wt-available-protocols", b'"chat"'))
            assert (headers[b":status"], headers[b"wt-protocol"]) == (b"200", b'"chat"')
            greeting = await soon(session.uni.get())
            assert await soon(greeting.read_to_end()) == b"room 7, open"
            stream = session.open()
            stream.write(b"shout", end=True)
            assert await soon(stream.read_to_end()) == b"SHOUT"
            session.send_datagram(b"abc")
            assert await soon(session.datagrams.get()) == b"cba"
            session.open().write(b"close", end=True)
            assert await soon(session.closed) == ("closed", 9, "asked")
            # Below an included router, beside an ordinary route of the same path.
            for path in ("/building/floor/1/rooms/7", "/building/only/7"):
                session, headers = await client.session(path)
                assert headers[b":status"] == b"200"
                greeting = await soon(session.uni.get())
                assert await soon(greeting.read_to_end()) == b"room 7, open"
            for path in ("/nowhere", "/building/floor/1/rooms"):
                _, headers = await client.session(path)
                assert headers[b":status"] == b"404"

    run(main)
    assert server.stop() == 0
    assert "fastapi: closed" in server.output
    assert "Traceback" not in server.output, server.output


def test_starlette(serve):
    server = serve("starlette_app:app")
    with httpx.Client(verify=False, base_url=server.url, timeout=60) as client:
        with open(__file__.replace("test_frameworks", "apps/starlette_app"), "rb") as file:
            assert client.get("/file").content == file.read()
        assert client.get("/background").text == "done"
        eventually(lambda: client.get("/done").json() == ["background"], "the background task")
        assert client.get("/missing").status_code == 404

    async def main():
        with pytest.raises(InvalidStatus) as refused:
            async with websocket(server, "/ws"):
                pass
        assert refused.value.response.status_code == 401
        assert refused.value.response.body == b"not you"
        async with dial(server) as client:
            session, headers = await client.session("/live")
            session.send_datagram(b"x")
            assert await soon(session.datagrams.get()) == b"x"
            _, headers = await client.session("/other")
            assert headers[b":status"] == b"404"

    run(main)


def test_starlette_alone_does_no_webtransport(serve):
    server = serve("starlette_app:bare")

    async def main():
        async with dial(server) as client:
            _, headers = await client.session("/live")
            assert headers[b":status"] == b"405"

    run(main)


@pytest.mark.parametrize(
    ("app", "path", "other"),
    [
        ("app", "/live", "/live/"),
        ("middleware", "/room/7", "/rooms/7"),
        ("mounted", "/floor/1/wing/room/7", "/floor/1/room/7"),
    ],
)
@pytest.mark.parametrize("root", ["", "/base"])
def test_paths_of_sessions_below_a_root_path(serve, app, path, other, root):
    server = serve(f"starlette_app:{app}", "--root-path", root)

    async def main():
        async with dial(server) as client:
            # The scope has the root path in front of it.
            session, headers = await client.session(path)
            assert headers[b":status"] == b"200"
            session.send_datagram(b"7")
            assert await soon(session.datagrams.get()) == b"7"
            _, headers = await client.session(other)
            assert headers[b":status"] == b"404"

    run(main)
    assert "Traceback" not in server.output, server.output


def test_an_http_exception_refuses_a_session(serve):
    server = serve("starlette_app:middleware")

    async def main():
        async with dial(server) as client:
            _, headers = await client.session("/room/full")
            assert (headers[b":status"], headers[b"retry-after"]) == (b"429", b"7")

    run(main)
    assert "Traceback" not in server.output, server.output


@pytest.mark.parametrize("make", [lambda session: Router(None, {"/baseball": session}), starlette_routes])
def test_a_root_path_ends_at_a_slash(make):
    """`/base` is not the root path of `/baseball`."""

    async def ask(path):
        accepted, sent = [], []

        async def session(*_):
            accepted.append(path)

        async def receive():
            return {"type": "webtransport.connect"}

        async def send(message):
            sent.append(message)

        scope = {"type": "webtransport", "path": path, "root_path": "/base", "headers": []}
        await make(session)(scope, receive, send)
        return bool(accepted)

    async def main():
        found = [await ask(path) for path in ["/base/baseball", "/baseball", "/base/ball", "/base"]]
        assert found == [True, True, False, False]

    run(main)


def test_django_and_channels(serve):
    server = serve("django_app:app")
    with httpx.Client(verify=False, http2=True, base_url=server.url, timeout=60) as client:
        answer = client.post("/view?a=1", content="body", headers={"content-type": "text/plain"}).json()
        assert answer == {"method": "POST", "body": "body", "query": {"a": "1"}}
        assert client.get("/plain").text == "async"
        assert client.get("/stream").text == "0;1;2;"
        login = client.get("/admin/", follow_redirects=True)
        assert login.status_code == 200 and "Django administration" in login.text
        assert client.get("/static/admin/css/base.css").status_code == 200
        assert client.get("/missing").status_code == 404

    async def main():
        async with websocket(server, "/ws") as socket:
            await socket.send("abc")
            assert await socket.recv() == "cba"
        async with dial(server) as client:
            session, _ = await client.session("/anything")
            stream = session.open()
            stream.write(b"abc", end=True)
            assert await soon(stream.read_to_end()) == b"cba"
            session.close(0, "")

    run(main)
    assert server.stop() == 0
