"""A plain ASGI application whose paths are the cases of the tests. Every event of a session is kept for `/journal`."""

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import sys

JOURNAL = {}

#: What an application does not let go of.
KEPT = []


async def read(receive):
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += message["body"]
        if not message["more_body"]:
            return body


async def respond(send, status, body, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def crowd(send, message):
    """Three at once who send more than the client takes."""
    sending = asyncio.gather(*(send(message) for _ in range(3)), return_exceptions=True)
    await asyncio.sleep(0)
    print("sending", flush=True)
    print("sent:", [isinstance(outcome, OSError) for outcome in await sending], flush=True)


async def watched(receive):
    """The next event, for which another waited, too, and gave up."""
    watching = asyncio.create_task(receive())
    await asyncio.sleep(0)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(receive(), 0.01)
    print("watching", flush=True)
    event = await watching
    print("watched:", event["type"], flush=True)
    return event


class MallInfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "use", "free", "keep"]
    ]


def allocated():
    """Bytes that malloc has given out; with PYTHONMALLOC=malloc Python's objects are among them."""
    gc.collect()
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = MallInfo
    told = ask()
    return told.use + told.hblkhd


def is_inheritable(number):
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


def plain(value):
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


async def http(scope, receive, send):
    path = scope["path"].removeprefix(scope["root_path"])
    if path == "/echo":
        await respond(send, 200, await read(receive))
    elif path == "/scope":
        await respond(send, 200, json.dumps(plain(scope)).encode())
    elif path == "/marks":
        # What middleware writes into a scope is its own request's.
        scopes = [scope, scope["asgi"], scope["extensions"], scope["extensions"].get("tls", {})]
        await respond(send, 200, json.dumps([place.setdefault("mark", "new") for place in scopes]).encode())
        for place in scopes:
            place["mark"] = "old"
    elif path == "/answer-first":
        # Answers while it is still asked.
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await read(receive)
        await asyncio.Event().wait()
    elif path == "/pid":
        await respond(send, 200, str(os.getpid()).encode())
    elif path == "/inheritable":
        numbers = [number for number in range(256) if is_inheritable(number)]
        await respond(send, 200, json.dumps(numbers).encode())
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200})
        for number in range(5):
            await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body"})
    elif path == "/big":
        size = int(scope["query_string"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        block = bytes(range(256)) * 256
        while size > 0:
            await send({"type": "http.response.body", "body": block[:size], "more_body": size > len(block)})
            size -= len(block)
    elif path == "/tasks":
        await send({"type": "http.response.start", "status": 200})
        for _ in range(200):
            await asyncio.create_task(send({"type": "http.response.body", "body": b"x", "more_body": True}))
        await send({"type": "http.response.body"})
    elif path == "/trailers":
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"trailer", b"x-sum")],
                "trailers": True,
            }
        )
        await send({"type": "http.response.body", "body": b"content"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"42")]})
    elif path == "/file":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/x-python")]})
        await send({"type": "http.response.pathsend", "path": __file__})
    elif path == "/hints":
        offered = "http.response.early_hint" in scope["extensions"]
        for links in [[b"</a.css>; rel=preload", b"</b.js>; rel=preload"], [b"</c.png>; rel=preload"]] * offered:
            await send({"type": "http.response.early_hint", "links": links})
            await asyncio.sleep(0)
        if not offered:
            try:
                await send({"type": "http.response.early_hint", "links": []})
            except RuntimeError as error:
                await respond(send, 200, str(error).encode())
                return
        await respond(send, 200, b"hinted")
    elif path == "/slow":
        JOURNAL.setdefault("slow", []).append("begun")
        await asyncio.sleep(float(scope["query_string"] or b"1"))
        await respond(send, 200, b"slow")
    elif path == "/wait":
        # Until the client leaves.
        await read(receive)
        JOURNAL.setdefault("wait", []).append("waiting")
        message = await receive()
        JOURNAL["wait"].append(message["type"])
    elif path == "/background":
        await respond(send, 200, b"done")
        await asyncio.Event().wait()
    elif path == "/endless":
        await read(receive)
        watching = asyncio.create_task(receive())
        await send({"type": "http.response.start", "status": 200})
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "http.response.body", "body": b"tick", "more_body": True})
                await asyncio.sleep(0.01)
        JOURNAL.setdefault("endless", []).append((await watching)["type"])
    elif path == "/answer-and-read":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        events = JOURNAL.setdefault("answer-and-read", [])
        for _ in range(2):
            events.append((await receive())["type"])
        await send({"type": "http.response.body"})
    elif path in ("/fail-late", "/fail-of-leaving"):
        await read(receive)
        print("failing", flush=True)
        await receive()
        try:
            await send({"type": "http.response.start", "status": 200})
        except OSError as error:
            if path == "/fail-of-leaving":
                raise RuntimeError("of leaving") from ExceptionGroup("several", [error])
        raise RuntimeError("on purpose, late")
    elif path == "/keep":
        KEPT.append((receive, send))
        await respond(send, 200, b"kept")
    elif path == "/crowd":
        await send({"type": "http.response.start", "status": 200})
        await crowd(send, {"type": "http.response.body", "body": bytes(8 << 20), "more_body": True})
        await send({"type": "http.response.body"})
    elif path == "/watched":
        while (await watched(receive))["type"] != "http.disconnect":
            pass
    elif path == "/memory":
        await respond(send, 200, b"%d" % allocated())
    elif path == "/journal":
        name = scope["query_string"].decode()
        tasks = sorted(repr(task.get_coro()) for task in asyncio.all_tasks())
        await respond(send, 200, json.dumps({"events": plain(JOURNAL.get(name, [])), "tasks": tasks}).encode())
    elif path == "/spin":
        # Every await is ready at once, until another request says so.
        await respond(send, 200, b"spinning")
        JOURNAL["spin"] = ["spinning"]
        while JOURNAL["spin"] == ["spinning"]:
            await receive()
    elif path == "/stop":
        JOURNAL["spin"] = []
        await respond(send, 200, b"stopped")
    elif path == "/after":
        await respond(send, 200, b"done")
        message = await receive()
        JOURNAL.setdefault("after", []).append(message["type"])
    else:
        await faults(path, receive, send)


async def faults(path, receive, send):
    start = {"type": "http.response.start", "status": 200}
    end = {"type": "http.response.body", "body": b"x"}
    if path == "/raise":
        raise RuntimeError("on purpose")
    if path == "/raise-late":
        await send(start)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("on purpose")
    if path == "/nothing":
        return
    if path == "/half":
        await send(start)
        return
    if path == "/half-body":
        await send(start)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        return
    if path == "/status":
        await send({"type": "http.response.start", "status": 42})
    elif path == "/status-text":
        await send({"type": "http.response.start", "status": "200"})
    elif path == "/body-first":
        await send(end)
    elif path == "/text-body":
        await send(start)
        await send({"type": "http.response.body", "body": "text"})
    elif path == "/bad-header":
        await send({**start, "headers": [(b"x", b"a\r\nb: c")]})
    elif path == "/bad-headers":
        await send({**start, "headers": [b"x"]})
    elif path == "/huge-header":
        await send({**start, "headers": [(b"x", b"y" * 300_000)]})
        await send(end)
    elif path == "/no-dict":
        await send("http.response.start")
    elif path == "/unknown":
        await send({"type": "http.unknown"})
    elif path == "/twice":
        await send(start)
        await send(start)
    elif path == "/too-long":
        await send({**start, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"more"})
    elif path == "/too-short":
        await send({**start, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"less"})
    elif path == "/after-end":
        await send(start)
        await send(end)
        try:
            await send(end)
        except RuntimeError as error:
            JOURNAL.setdefault("after-end", []).append(str(error))
    elif path == "/exit":
        sys.exit(7)
    else:
        await respond(send, 404, b"not found")


async def websocket(scope, receive, send):
    path = scope["path"]
    message = await receive()
    assert message["type"] == "websocket.connect"
    if path == "/refuse":
        await send({"type": "websocket.close"})
        return
    if path == "/deny":
        headers, status = [(b"x-why", b"denied")], int(scope["query_string"] or 418)
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"tea"})
        return
    if path == "/raise":
        raise RuntimeError("on purpose")
    if path == "/return":
        return
    if path == "/keep":
        KEPT.append((receive, send))
    protocol = scope["subprotocols"][0] if scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": protocol, "headers": [(b"x-extra", b"1")]})
    if path == "/raise-late":
        raise RuntimeError("on purpose")
    if path == "/leave":
        return
    if path == "/scope":
        await send({"type": "websocket.send", "text": json.dumps(plain(scope))})
    if path == "/deaf":
        # Never receives: pings are answered all the same.
        await asyncio.sleep(3600)
    if path == "/late":
        await asyncio.sleep(2)
    if path == "/crowd":
        await crowd(send, {"type": "websocket.send", "bytes": bytes(8 << 20)})
    if path == "/watched":
        await watched(receive)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            JOURNAL.setdefault("websocket", []).append(message)
            if path == "/farewell":
                print("websocket.disconnect:", message["code"], flush=True)
            return
        text = message.get("text")
        if text == "close":
            await send({"type": "websocket.close", "code": 4321, "reason": "as you wish"})
            continue
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def webtransport(scope, receive, send):
    path, name = scope["path"], scope["query_string"].decode()
    events = [] if name == "forget" else JOURNAL.setdefault(name, [])
    if path == "/raise-early":
        raise RuntimeError("on purpose")
    if path == "/unknown-scope":
        raise AssertionError(scope["type"])
    message = await receive()
    events.append(message)
    if path == "/return":
        return
    if path == "/raise":
        raise RuntimeError("on purpose")
    if path.startswith("/status/"):
        await send({"type": "webtransport.close", "status": int(path[8:]), "headers": [(b"x-why", b"because")]})
        try:
            while name == "stays":
                events.append(await receive())
        except asyncio.CancelledError:
            events.append({"type": "cancelled"})
        return
    if path.startswith("/code/"):
        await send({"type": "webtransport.close", "code": int(path[6:])})
        return
    if path == "/slow-accept":
        await asyncio.sleep(0.3)
    if path == "/foreign-protocol":
        try:
            await send({"type": "webtransport.accept", "subprotocol": "not-offered"})
        except ValueError as error:
            events.append({"type": "raised", "what": str(error)})
    if path.startswith("/hasty"):
        # Ends before the client has heard of it.
        send({"type": "webtransport.accept"})
        if path == "/hasty-failure":
            raise RuntimeError("on purpose")
        return
    if path == "/keep":
        KEPT.append((receive, send))
    if path == "/hurried":
        await hurried(receive, send, events)
        return
    protocol = scope["subprotocols"][-1] if scope["subprotocols"] else None
    extra = {
        "/huge-acceptance": b"1" * (1 << 20),
        "/extensions": ",".join(sorted(scope["extensions"])).encode(),
    }.get(path, b"1")
    await send({"type": "webtransport.accept", "subprotocol": protocol, "headers": [(b"x-extra", extra)]})
    case = SESSIONS.get(path)
    try:
        if case is not None:
            await case(scope, receive, send, events)
        else:
            await echo(receive, send, events)
    except asyncio.CancelledError:
        events.append({"type": "cancelled"})
        raise


async def echo(receive, send, events):
    while True:
        message = await receive()
        kind = message["type"]
        events.append({**message, "data": len(message["data"])} if "data" in message else message)
        if kind == "webtransport.disconnect":
            return
        try:
            if kind == "webtransport.stream.receive" and message["stream"] % 4 == 0:
                await send(
                    {
                        "type": "webtransport.stream.send",
                        "stream": message["stream"],
                        "data": message["data"],
                        "end_stream": not message["more_data"],
                    }
                )
            elif kind == "webtransport.datagram.receive":
                await send({"type": "webtransport.datagram.send", "data": message["data"]})
        except OSError:
            events.append({"type": "gone"})


async def attempts(scope, receive, send, events):
    """Everything that is illegal, and what it raises."""
    await send({"type": "webtransport.stream.open", "bidirectional": False})
    opened = await receive()
    uni = opened["stream"]
    await send({"type": "webtransport.stream.send", "stream": uni, "data": b"x", "end_stream": True})
    message = await receive()
    client = message["stream"]
    size = scope["extensions"]["webtransport"]["max_datagram_size"]
    for what in [
        {"type": "webtransport.stream.send", "stream": 4000, "data": b""},
        {"type": "webtransport.stream.send", "stream": client, "data": b""},
        {"type": "webtransport.stream.send", "stream": uni, "data": b"more"},
        {"type": "webtransport.stream.send", "stream": "0", "data": b""},
        {"type": "webtransport.stream.send", "data": b""},
        {"type": "webtransport.stream.send", "stream": -1, "data": b""},
        {"type": "webtransport.stream.stop", "stream": uni},
        {"type": "webtransport.stream.reset", "stream": client},
        {"type": "webtransport.stream.reset", "stream": client, "code": 2**32},
        {"type": "webtransport.datagram.send", "data": b"x" * (size + 5000)},
        {"type": "webtransport.datagram.send", "data": "text"},
        {"type": "webtransport.accept"},
        {"type": "webtransport.close", "reason": "x" * 1025},
        {"type": "webtransport.unknown"},
        {"type": "http.response.start"},
    ]:
        try:
            await send(what)
            events.append({"type": "nothing was raised", "by": repr(what)})
        except Exception as error:
            events.append(
                {"type": type(error).__name__, "what": str(error), "max_size": getattr(error, "max_size", None)}
            )
    await send({"type": "webtransport.close", "code": 7, "reason": "enough"})
    message = await receive()
    events.append(message)
    for what in [
        {"type": "webtransport.stream.send", "stream": client, "data": b""},
        {"type": "webtransport.datagram.send", "data": b""},
        {"type": "webtransport.close"},
    ]:
        try:
            await send(what)
            events.append({"type": "nothing was raised after the end"})
        except OSError:
            events.append({"type": "OSError"})


async def hurried(receive, send, events):
    """Goes on while the client does not know that it is accepted."""
    receiving, accepting = receive(), send({"type": "webtransport.accept"})
    await send({"type": "webtransport.stream.open"})
    receiving.send(None)
    for what in [{"type": "webtransport.datagram.send", "data": b"x"}, {"type": "webtransport.close"}]:
        try:
            await send(what)
        except RuntimeError as error:
            events.append({"type": "RuntimeError", "what": str(error)})
    await accepting
    events.append(await receiving)
    await send({"type": "webtransport.datagram.send", "data": b"opened"})
    await echo(receive, send, events)


async def giving_up(scope, receive, send, events):
    """Resets streams on which another coroutine waits."""
    for bidirectional in [False, True]:
        await send({"type": "webtransport.stream.open", "bidirectional": bidirectional})
        stream = (await receive())["stream"]
        sending = send({"type": "webtransport.stream.send", "stream": stream, "data": bytes(10 << 20)})
        writing = asyncio.create_task(sending)
        await asyncio.sleep(0)
        assert not writing.done()
        await send({"type": "webtransport.stream.reset", "stream": stream})
        await writing
        await send({"type": "webtransport.datagram.send", "data": b"given up"})


async def leaving(scope, receive, send, events):
    await receive()


async def stubborn(scope, receive, send, events):
    """As aioquic's demo: ignores what it does not know, a disconnect included."""
    while True:
        message = await receive()
        events.append({"type": message["type"]})


async def opener(scope, receive, send, events):
    """Opens one stream of each kind, says who it is on each."""
    await send({"type": "webtransport.stream.open"})
    await send({"type": "webtransport.stream.open", "bidirectional": False})
    while True:
        message = await receive()
        events.append(message)
        kind = message["type"]
        if kind == "webtransport.stream.opened":
            await send(
                {
                    "type": "webtransport.stream.send",
                    "stream": message["stream"],
                    "data": b"from the server",
                    "end_stream": True,
                }
            )
        elif kind == "webtransport.disconnect":
            return


async def closer(scope, receive, send, events):
    await send({"type": "webtransport.close", "code": 4_000_000_000, "reason": "so long, ü"})
    events.append(await receive())


async def failing(scope, receive, send, events):
    await receive()
    raise RuntimeError("on purpose")


async def resetting(scope, receive, send, events):
    while True:
        message = await receive()
        events.append(message)
        if message["type"] == "webtransport.disconnect":
            return
        if message["type"] == "webtransport.stream.receive" and message["data"]:
            stream = message["stream"]
            if message["data"] == b"reset":
                await send({"type": "webtransport.stream.reset", "stream": stream, "code": 4242})
            elif message["data"] == b"stop":
                await send({"type": "webtransport.stream.stop", "stream": stream, "code": 2121})


async def pausing(scope, receive, send, events):
    """Takes nothing of a stream between `pause` and a datagram."""
    while True:
        message = await receive()
        kind = message["type"]
        if kind == "webtransport.disconnect":
            return
        if kind == "webtransport.stream.receive":
            events.append({"data": message["data"], "more": message["more_data"]})
            if message["data"] == b"first":
                await send({"type": "webtransport.stream.pause", "stream": message["stream"]})
                events.append({"paused": message["stream"]})
                await send({"type": "webtransport.datagram.send", "data": b"paused"})
        elif kind == "webtransport.datagram.receive":
            events.append({"resumed": True})
            await send({"type": "webtransport.stream.resume", "stream": int(message["data"])})


async def flood(scope, receive, send, events):
    """Sends more than anybody takes; how much is counted."""
    message = await receive()
    stream = message["stream"]
    sent = 0
    JOURNAL["flood"] = [0]
    try:
        while sent < 256 << 20:
            await send({"type": "webtransport.stream.send", "stream": stream, "data": bytes(65536)})
            sent += 65536
            JOURNAL["flood"] = [sent]
    except OSError:
        events.append({"type": "OSError"})
    while message["type"] != "webtransport.disconnect":
        message = await receive()
    events.append(message)


async def reader(scope, receive, send, events):
    """Receives nothing until it is told by a file that appears."""
    await asyncio.sleep(3600)


async def watching(scope, receive, send, events):
    while (await watched(receive))["type"] != "webtransport.disconnect":
        pass


SESSIONS = {
    "/attempts": attempts,
    "/stubborn": stubborn,
    "/opener": opener,
    "/closer": closer,
    "/failing": failing,
    "/resetting": resetting,
    "/pausing": pausing,
    "/flood": flood,
    "/deaf": reader,
    "/watched": watching,
    "/giving-up": giving_up,
    "/leaving": leaving,
}


async def lifespan(scope, receive, send):
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            scope["state"]["born"] = "here"
            await send({"type": "lifespan.startup.complete"})
        else:
            print("lifespan: shut down", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return


async def app(scope, receive, send):
    await {"http": http, "websocket": websocket, "webtransport": webtransport, "lifespan": lifespan}[scope["type"]](
        scope, receive, send
    )
