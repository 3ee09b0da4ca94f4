"""A page, what it tells, and sessions for it."""

import json

PAGE = [b""]
TOLD = [b"null"]
EVENTS = []


async def http(scope, receive, send):
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    answer = b""
    if scope["path"] in ("/page", "/told"):
        kept = PAGE if scope["path"] == "/page" else TOLD
        if scope["method"] == "POST":
            kept[0] = body
        answer = kept[0]
    elif scope["path"] == "/events":
        answer = json.dumps(EVENTS, default=repr).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": answer})


async def webtransport(scope, receive, send):
    await receive()
    if scope["path"] != "/browser":
        await send({"type": "webtransport.close", "status": 404})
        return
    await send({"type": "webtransport.accept", "subprotocol": scope["subprotocols"][-1]})
    await send({"type": "webtransport.stream.open", "bidirectional": False})
    while True:
        message = await receive()
        kind = message["type"]
        if kind == "webtransport.stream.opened":
            greeting = {"stream": message["stream"], "data": b"from the server", "end_stream": True}
            await send({"type": "webtransport.stream.send", **greeting})
        elif kind == "webtransport.stream.receive":
            echo = {"stream": message["stream"], "data": message["data"], "end_stream": not message["more_data"]}
            await send({"type": "webtransport.stream.send", **echo})
        elif kind == "webtransport.datagram.receive":
            await send({"type": "webtransport.datagram.send", "data": message["data"]})
        elif kind == "webtransport.disconnect":
            EVENTS.append(message)
            return


async def app(scope, receive, send):
    if scope["type"] == "http":
        await http(scope, receive, send)
    elif scope["type"] == "webtransport":
        await webtransport(scope, receive, send)
    else:
        raise NotImplementedError
