"""Applications that do not start, or do not want to know of it."""


async def refuses(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def raises(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("knows no lifespan")
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"served"})


def factory():
    """A mistake in here, not in the call of it."""
    return len(7)
