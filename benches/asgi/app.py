"""What every server of `cargo xtask bench asgi` serves: requests, and sessions that send everything back."""


async def app(scope, receive, send):
    if scope["type"] == "http":
        body = b"Hello, world!"
        if scope["method"] == "POST":
            body = b""
            more = True
            while more:
                message = await receive()
                body += message["body"]
                more = message["more_body"]
        headers = [
            (b"content-type", b"text/plain"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    elif scope["type"] == "webtransport":
        while True:
            message = await receive()
            kind = message["type"]
            if kind == "webtransport.stream.receive":
                await send(
                    {
                        "type": "webtransport.stream.send",
                        "stream": message["stream"],
                        "data": message["data"],
                    }
                )
            elif kind == "webtransport.datagram.receive":
                await send(
                    {"type": "webtransport.datagram.send", "data": message["data"]}
                )
            elif kind == "webtransport.connect":
                await send({"type": "webtransport.accept"})
            elif kind == "webtransport.disconnect":
                return
    else:
        raise NotImplementedError(scope["type"])
