"""The `webtransport` scope: the ten rules, by an independent client (aioquic)."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
import wireloom
from conftest import eventually
from session import Reset
from wt_client import dial, soon


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module("plain:app", "--session-grace", "0.3")


def journal(server, name):
    with httpx.Client(verify=False, timeout=60) as client:
        return client.get(f"{server.url}/journal?{name}").json()["events"]


def until(server, name, kind):
    """The events of the session that was called so, once it has one of this kind."""
    return eventually(
        lambda: (events := journal(server, name)) and any(e.get("type") == kind for e in events) and events,
        f"{kind} in {name}",
    )


def run(main):
    asyncio.run(asyncio.wait_for(main(), 120))


def session(test):
    """Runs a coroutine with a client on a connection of its own."""

    def wrapped(server):
        async def main():
            async with dial(server) as client:
                await test(server, client)

        run(main)

    wrapped.__name__ = test.__name__
    wrapped.__doc__ = test.__doc__
    return wrapped


@session
async def test_the_scope_and_the_acceptance(server, client):
    protocols = (b"wt-available-protocols", b'"first", "second"')
    session, headers = await client.session("/echo%20o?scope-name", protocols)
    assert headers[b":status"] == b"200"
    assert headers[b"x-extra"] == b"1"
    assert headers[b"wt-protocol"] == b'"second"'
    session.close(0, "")


@session
async def test_the_scope_tells_of_tls(server, client):
    _, headers = await client.session("/extensions?extensions")
    assert headers[b"x-extra"] == b"tls,webtransport"


@session
async def test_bidirectional_streams_are_echoed(server, client):
    session, _ = await client.session("/echo?bidi")
    for content in [b"hello", b"", bytes(n * 131 % 251 for n in range(300_000))]:
        stream = session.open()
        stream.write(content, end=True)
        assert await soon(stream.read_to_end()) == content
    streams = [session.open() for _ in range(50)]
    for number, stream in enumerate(streams):
        stream.write(b"%d" % number, end=True)
    assert [await soon(stream.read_to_end()) for stream in streams] == [b"%d" % n for n in range(50)]
    session.close(3, "done")
    events = await asyncio.to_thread(until, server, "bidi", "webtransport.disconnect")
    assert events[0]["type"] == "webtransport.connect"
    assert events[-1] == {"type": "webtransport.disconnect", "code": 3, "reason": "done", "clean": True}
    ends = [e["stream"] for e in events if e["type"] == "webtransport.stream.receive" and not e["more_data"]]
    assert len(ends) == len(set(ends)) == 53, "each stream ends exactly once"


@session
async def test_unidirectional_streams_and_datagrams(server, client):
    session, _ = await client.session("/echo?uni")
    stream = session.open(unidirectional=True)
    stream.write(b"one way", end=True)
    session.send_datagram(b"ping")
    assert await soon(session.datagrams.get()) == b"ping"
    session.close(0, "")
    events = await asyncio.to_thread(until, server, "uni", "webtransport.disconnect")
    received = [e for e in events if e["type"] == "webtransport.stream.receive"]
    assert sum(e["data"] for e in received) == 7 and received[-1]["more_data"] is False
    assert received[0]["stream"] % 4 == 2


@session
async def test_a_stream_without_data_is_announced(server, client):
    session, _ = await client.session("/echo?announced")
    session.open().write(b"")
    events = await asyncio.to_thread(until, server, "announced", "webtransport.stream.receive")
    assert events[-1]["data"] == 0 and events[-1]["more_data"] is True
    session.close(0, "")


@session
async def test_streams_of_the_server(server, client):
    session, _ = await client.session("/opener?opener")
    bidi, uni = await soon(session.bidi.get()), await soon(session.uni.get())
    assert await soon(bidi.read_to_end()) == b"from the server"
    assert await soon(uni.read_to_end()) == b"from the server"
    bidi.write(b"back", end=True)
    events = await asyncio.to_thread(until, server, "opener", "webtransport.stream.receive")
    opened = [(e["stream"] % 4, e["bidirectional"]) for e in events if e["type"] == "webtransport.stream.opened"]
    assert opened == [(1, True), (3, False)], "in the order in which they were asked for"
    session.close(0, "")


@session
async def test_what_comes_before_the_acceptance_waits(server, client):
    stream_id = client.request(
        [
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":authority", client.authority),
            (b":path", b"/slow-accept?early"),
            (b":protocol", b"webtransport"),
            (b"sec-webtransport-http3-draft02", b"1"),
        ],
        end=False,
    )
    session = client.sessions[stream_id]
    stream = session.open()
    stream.write(b"early", end=True)
    session.send_datagram(b"early too")
    assert (await soon(client.responses[stream_id]))[b":status"] == b"200"
    assert await soon(stream.read_to_end()) == b"early"
    assert await soon(session.datagrams.get()) == b"early too"
    session.close(0, "")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/status/404", b"404"),
        ("/status/302", b"302"),
        ("/status/503", b"503"),
        ("/code/429", b"429"),
        ("/code/7", b"403"),
        ("/code/0", b"403"),
        ("/return", b"403"),
        ("/raise", b"500"),
        ("/raise-early", b"500"),
        ("/unknown-scope", b"405"),
    ],
)
def test_refusals(server, path, status):
    async def main():
        async with dial(server) as client:
            _, headers = await client.session(path)
            assert headers[b":status"] == status
            if path.startswith("/status"):
                assert headers[b"x-why"] == b"because"
            # The connection goes on.
            assert (await client.fetch("/echo"))[0][b":status"] == b"200"

    run(main)


@session
async def test_illegal_sends_raise(server, client):
    session, _ = await client.session("/attempts?attempts")
    stream = session.open(unidirectional=True)
    stream.write(b"x", end=True)
    assert await soon(session.closed) == ("closed", 7, "enough")
    events = await asyncio.to_thread(until, server, "attempts", "OSError")
    kinds = [event["type"] for event in events if "webtransport" not in event["type"]]
    assert kinds == [
        "ValueError",  # a foreign id
        "ValueError",  # the client's own stream
        "ValueError",  # after its end
        "ValueError",  # no number
        "ValueError",  # no stream
        "ValueError",  # a negative one
        "ValueError",  # nothing to stop
        "ValueError",  # nothing to reset
        "ValueError",  # a code of more than 32 bits
        "DatagramTooLarge",
        "TypeError",
        "RuntimeError",  # accepted before
        "ValueError",  # a reason of more than 1024 bytes
        "RuntimeError",
        "RuntimeError",
        *["OSError"] * 3,
    ], events
    assert [event["max_size"] > 1000 for event in events if event.get("max_size")] == [True]
    assert events[-4] == {"type": "webtransport.disconnect", "code": 7, "reason": "enough", "clean": True}


@session
async def test_a_protocol_that_was_not_offered(server, client):
    session, headers = await client.session("/foreign-protocol?foreign", (b"wt-available-protocols", b'"mine"'))
    assert headers[b"wt-protocol"] == b'"mine"'
    events = await asyncio.to_thread(until, server, "foreign", "raised")
    assert "not-offered" in events[1]["what"]
    session.close(0, "")


@session
async def test_closing(server, client):
    session, _ = await client.session("/closer?closer")
    assert await soon(session.closed) == ("closed", 4_000_000_000, "so long, ü")
    events = await asyncio.to_thread(until, server, "closer", "webtransport.disconnect")
    assert events[-1]["clean"] is True


@session
async def test_an_exception_resets_the_session(server, client):
    session, _ = await client.session("/failing?failing")
    session.send_datagram(b"now")
    how = await soon(session.closed)
    assert how[0] == "lost", how
    server.wait_for("on purpose")
    assert (await client.fetch("/echo"))[0][b":status"] == b"200", "the connection goes on"


@session
async def test_resets_and_stops(server, client):
    session, _ = await client.session("/resetting?resetting")
    stream = session.open()
    stream.write(b"reset")
    with pytest.raises(Reset) as raised:
        await soon(stream.read_to_end())
    assert raised.value.args == (4242,)
    stream = session.open()
    stream.write(b"stop")
    assert await soon(stream.stopped) == 2121
    stream = session.open()
    stream.write(b"data")
    await asyncio.to_thread(eventually, lambda: any(e.get("data") == "data" for e in journal(server, "resetting")))
    stream.reset(77)
    stream.stop(88)
    events = await asyncio.to_thread(
        eventually,
        lambda: (
            (e := journal(server, "resetting")) and {"reset", "stopped"} <= {x["type"].split(".")[-1] for x in e} and e
        ),
    )
    codes = {event["type"]: event["code"] for event in events if "code" in event}
    assert codes == {"webtransport.stream.reset": 77, "webtransport.stream.stopped": 88}
    session.close(0, "")


@session
async def test_pausing_a_stream(server, client):
    session, _ = await client.session("/pausing?pausing")
    stream = session.open()
    stream.write(b"first")
    assert await soon(session.datagrams.get()) == b"paused"
    stream.write(b"second", end=True)
    session.send_datagram(b"%d" % stream.id)
    events = await asyncio.to_thread(
        eventually, lambda: (e := journal(server, "pausing")) and any(x.get("more") is False for x in e) and e
    )
    assert events.index({"resumed": True}) < next(n for n, e in enumerate(events) if "second" in str(e.get("data")))
    session.close(0, "")


def test_back_pressure(server):
    """An application that sends to a client that takes nothing is held up."""

    async def main():
        async with dial(server, max_data=1 << 20, max_stream_data=1 << 18) as client:
            session, _ = await client.session("/flood?flooded")
            stream = session.open()
            # Everything that arrives is thrown away by no one: aioquic raises the window only for what it hands out, so it is
            # kept from doing so.
            client._quic._write_stream_limits = lambda *_, **__: None
            client._quic._write_connection_limits = lambda *_, **__: None
            stream.write(b"go")
            sizes = []
            while len(sizes) < 5 or len(set(sizes[-5:])) > 1 or not sizes[-1]:
                await asyncio.sleep(0.2)
                sizes.append((await asyncio.to_thread(journal, server, "flood") or [0])[0])
            assert sizes[-1] < 32 << 20, "the application waits"

    run(main)
    eventually(lambda: any(e.get("type") == "OSError" for e in journal(server, "flooded")), "the end of the flood")


def test_a_client_that_receives_nothing_is_not_taken_from(server):
    """What an application does not receive is not taken from QUIC: the client is held up."""

    async def main():
        async with dial(server) as client:
            session, _ = await client.session("/deaf?deaf")
            stream = session.open()
            stream.write(bytes(64 << 20))
            await asyncio.sleep(1)
            sent = client._quic._streams[stream.id].sender._buffer_start
            assert sent < 24 << 20, sent
            session.close(0, "")

    run(main)


def test_clients_that_vanish_leave_nothing(server):
    """As aioquic's demo: an application that ignores the disconnect neither spins nor stays."""

    async def main():
        async with dial(server) as client:
            session, _ = await client.session("/stubborn?stubborn")
            stream = session.open()
            stream.write(b"x")
            await asyncio.to_thread(until, server, "stubborn", "webtransport.stream.receive")
            client._quic.close(error_code=0x10C)
            client.transmit()

    run(main)
    events = until(server, "stubborn", "cancelled")
    assert [event["type"] for event in events].count("webtransport.disconnect") == 1
    assert events[-1] == {"type": "cancelled"}, "after the grace period"


@session
async def test_drafts_and_origins(server, client):
    # The token of the newest drafts, and pages of other origins.
    authority = client.authority
    base = [(b":method", b"CONNECT"), (b":scheme", b"https"), (b":authority", authority), (b":path", b"/echo?token")]
    stream_id = client.request([*base, (b":protocol", b"webtransport"), (b"origin", b"https://evil.test")], end=False)
    assert (await soon(client.responses[stream_id]))[b":status"] == b"403"
    origin = b"https://" + authority
    stream_id = client.request([*base, (b":protocol", b"webtransport"), (b"origin", origin)], end=False)
    assert (await soon(client.responses[stream_id]))[b":status"] == b"200"


def test_an_acceptance_that_the_client_does_not_take_ends(server):
    async def main():
        with pytest.raises(wireloom.ConnectError):
            await wireloom.Client(verify=False).connect(f"{server.url}/huge-acceptance?huge")

    run(main)
    until(server, "huge", "webtransport.disconnect")


@pytest.mark.parametrize("path", ["/echo?forget", "/leaving?forget"])
def test_a_thousand_sessions_leave_nothing(serve, path):
    """Opened, used and dropped abruptly, or ended by the application: no task, and no byte."""
    server = serve("plain:app", "--session-grace", "0.2", "--no-access-log", env={"PYTHONMALLOC": "malloc"})

    async def batch(count):
        async with dial(server) as client:
            for number in range(count):
                session, headers = await client.session(path)
                assert headers[b":status"] == b"200"
                stream = session.open()
                stream.write(b"%d" % number, end=number % 2 == 0)
                session.send_datagram(b"x")
                if path.startswith("/leaving"):
                    assert await soon(session.closed) == ("closed", 0, "")
                    continue
                assert await soon(stream.read()) == b"%d" % number
                if number % 3 == 0:
                    session.close(0, "")
                elif number % 3 == 1:
                    client._quic.reset_stream(session.id, 0x10C)
                    client.transmit()

    def tasks():
        with httpx.Client(verify=False, timeout=60) as client:
            return len(client.get(f"{server.url}/journal?none").json()["tasks"])

    def idle():
        with httpx.Client(verify=False, timeout=60) as client:
            text = client.get(f"{server.url}/journal?none").text
        return json.loads(text)

    def allocated():
        with httpx.Client(verify=False, timeout=60) as client:
            return int(client.get(f"{server.url}/memory").text)

    before = tasks()

    async def batches():
        # Of the sessions on a connection a third stay open until the connection goes.
        await asyncio.gather(*(batch(40) for _ in range(5)))

    # What is made once, and kept.
    run(batches)
    eventually(lambda: tasks() <= before, "the end of all tasks")
    settled = allocated()
    for _ in range(5):
        run(batches)
        eventually(lambda: tasks() <= before, "the end of all tasks")
    # Tables that grow to a limit, addresses of clients among them, take about 150 bytes a session here, and a session itself
    # above a kilobyte. Connections drain meanwhile.
    eventually(lambda: allocated() - settled < 1000 * 400, "the end of all bytes")
    assert idle()["events"] == []


@session
async def test_who_stays_after_a_refusal_is_cancelled(server, client):
    _, headers = await client.session("/status/404?stays")
    assert headers[b":status"] == b"404"
    events = await asyncio.to_thread(until, server, "stays", "cancelled")
    assert [event["type"] for event in events] == ["webtransport.connect", "webtransport.disconnect", "cancelled"]


@session
async def test_who_gives_up_waiting_takes_nobody_s_news(server, client):
    session, _ = await client.session("/watched?watched")
    await asyncio.to_thread(server.wait_for, "^watching")
    session.send_datagram(b"news")
    await asyncio.to_thread(server.wait_for, "^watched: webtransport.datagram.receive")
    await asyncio.to_thread(server.wait_for, "^watching", count=2)
    session.close(0, "")
    await asyncio.to_thread(server.wait_for, "^watched: webtransport.disconnect")


@session
async def test_giving_a_stream_up_ends_sends_that_wait(server, client):
    session, _ = await client.session("/giving-up?giving-up")
    for _ in range(2):
        assert await soon(session.datagrams.get()) == b"given up"
    assert await soon(session.closed) == ("closed", 0, "")


@session
async def test_what_is_asked_for_during_the_acceptance(server, client):
    session, _ = await client.session("/hurried?hurried")
    assert await soon(session.datagrams.get()) == b"opened"
    events = await asyncio.to_thread(until, server, "hurried", "webtransport.stream.opened")
    assert [event["type"].split(".")[-1] for event in events] == ["connect", "RuntimeError", "RuntimeError", "opened"]
    assert all("acceptance" in event["what"] for event in events[1:3])
    session.close(0, "")


@pytest.mark.parametrize(("path", "end"), [("/hasty", "closed"), ("/hasty-failure", "lost")])
def test_an_application_that_ends_during_the_acceptance_ends_the_session(server, path, end):
    async def main():
        async with dial(server) as client:
            session, _ = await client.session(path)
            assert (await soon(session.closed))[0] == end

    run(main)
