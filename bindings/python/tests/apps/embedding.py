"""A program that serves its own application: ``python embedding.py SETTINGS``, as JSON."""

import json
import os
import sys

import wireloom


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": f"{os.getpid()}".encode()})


def make():
    return app


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    given = settings.pop("app", None) or (make if settings.get("factory") else app)
    wireloom.serve(given, port=0, **settings)
    print("serve has returned", flush=True)
