"""FastAPI's parameters and dependencies before sessions."""

from __future__ import annotations

import asyncio
import ssl

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from websockets.asyncio.client import connect
from wireloom.fastapi import WebTransport, webtransport
from wt_client import dial, soon


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module("guarded_app:app")


def said(server, path, *headers):
    """What the session says first, or the status with which it is refused."""

    async def main():
        async with dial(server) as client:
            session, answer = await client.session(path, *headers)
            if answer[b":status"] != b"200":
                return int(answer[b":status"])
            text = (await soon(session.datagrams.get())).decode()
            session.close(0, "")
            return text

    return asyncio.run(asyncio.wait_for(main(), 120))


def test_parameters_and_dependencies(server):
    path = "/rooms/7?name=alice&tag=a&tag=b"
    expected = "7 alice of earth, CONNECT resource replaced ['a', 'b'] sweet"
    assert said(server, path, (b"cookie", b"flavour=sweet")) == expected
    server.wait_for("resource: closed")


@pytest.mark.parametrize(
    ("path", "headers", "answer"),
    [
        ("/rooms/seven?name=alice", [], 403),
        ("/rooms/7", [], 401),
        ("/rooms/7?name=alice", [(b"planet", b"mars")], 451),
        ("/rooms/7?name=alice&free", [], 403),
        # Those of the application hold for routes that were appended, too.
        ("/plain", [], "plain earth"),
        ("/plain", [(b"planet", b"mars")], 451),
        # As do those of all routers that a route came through.
        ("/outer/inner/decorated?name=a", [(b"authorization", b"Bearer secret")], "secret"),
        ("/outer/inner/decorated?name=a", [], 401),
        ("/outer/inner/decorated", [(b"authorization", b"Bearer secret")], 401),
        ("/outer/inner/decorated?name=a&free", [(b"authorization", b"Bearer secret")], 403),
        ("/outer/inner/decorated?name=a", [(b"planet", b"mars"), (b"authorization", b"Bearer x")], 451),
        ("/outer/inner/plain?name=a", [], "plain earth"),
        ("/outer/inner/plain", [], 401),
        ("/outer/inner/plain?name=a&free", [], 403),
        ("/outer/inner/plain?name=a", [(b"planet", b"mars")], 451),
        # A mounted application has its own, and what replaces them.
        ("/sub/plain", [], "plain earth"),
        ("/sub/plain", [(b"planet", b"mars")], 451),
        ("/inner/decorated", [], 404),
    ],
)
def test_answers(server, path, headers, answer):
    assert said(server, path, *headers) == answer
    assert "Traceback" not in server.output, server.output


def test_a_refusal_says_why_in_the_log(server):
    said(server, "/rooms/secret?name=alice")
    (line,) = {line[0] for line in server.wait_for(r"a session of /rooms/\{room\} is refused: path.room: .*")}
    assert "secret" not in line


def test_other_requests_of_the_path(server):
    with httpx.Client(verify=False, timeout=60) as client:
        assert client.get(f"{server.url}/rooms/7").json() == {"page": 7}
        refused = client.get(f"{server.url}/outer/inner/decorated")
        assert (refused.status_code, refused.headers["allow"]) == (405, "CONNECT")
        assert "decorated" not in client.get(f"{server.url}/openapi.json").text

    async def main():
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        async with connect(f"wss://127.0.0.1:{server.port}/rooms/7", ssl=context, open_timeout=60) as websocket:
            assert await soon(websocket.recv()) == "socket 7"

    asyncio.run(main())


class Body(BaseModel):
    name: str


async def without(room: str): ...


async def with_a_body(wt: WebTransport, body: Body): ...


def no_coroutine(wt: WebTransport): ...


@pytest.mark.parametrize(
    ("endpoint", "says"), [(without, "annotated with"), (with_a_body, "wants a body"), (no_coroutine, "no coroutine")]
)
def test_endpoints_that_cannot_be(endpoint, says):
    with pytest.raises(TypeError, match=says):
        webtransport(FastAPI(), "/{room}")(endpoint)
