"""Starlette: files by path, responses that deny WebSockets, background tasks."""

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from wireloom import Router
from wireloom.starlette import WebTransport, WebTransportRoute, with_webtransport

DONE = []


async def file(request):
    return FileResponse(__file__)


async def background(request):
    return PlainTextResponse("done", background=BackgroundTask(DONE.append, "background"))


async def done(request):
    return JSONResponse(DONE)


async def denied(websocket: WebSocket):
    await websocket.send_denial_response(PlainTextResponse("not you", status_code=401))


async def session(scope, receive, send):
    await receive()
    await send({"type": "webtransport.accept"})
    while (message := await receive())["type"] != "webtransport.disconnect":
        if message["type"] == "webtransport.datagram.receive":
            await send({"type": "webtransport.datagram.send", "data": message["data"]})


app = Router(
    Starlette(
        routes=[
            Route("/file", file),
            Route("/background", background),
            Route("/done", done),
            WebSocketRoute("/ws", denied),
        ]
    ),
    {"/live": session},
)
bare = Starlette()


async def room(wt: WebTransport):
    if wt.path_params["room"] == "full":
        raise HTTPException(429, headers={"retry-after": "7"})
    await wt.accept()
    await wt.datagrams.send(wt.path_params["room"].encode())
    await wt.closed()


middleware = Starlette(routes=[WebTransportRoute("/room/{room}", room)])
middleware.add_middleware(with_webtransport)

floors = [Mount("/floor/{floor}", routes=[Mount("/wing", routes=[WebTransportRoute("/room/{room}", room)])])]
mounted = with_webtransport(Starlette(routes=floors))
