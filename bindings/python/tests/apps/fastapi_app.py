"""FastAPI with everything that its users do."""

import asyncio
import contextlib
import threading

from fastapi import APIRouter, FastAPI, Request, UploadFile, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from wireloom.starlette import WebTransport, WebTransportRoute, with_webtransport


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"database": "open"}
    print("fastapi: closed", flush=True)


class Item(BaseModel):
    name: str
    price: float


async def live(wt: WebTransport) -> None:
    await wt.accept(subprotocol=wt.subprotocols[0] if wt.subprotocols else None)
    greeting = await wt.open_stream(bidirectional=False)
    await greeting.write(f"room {wt.path_params['room']}, {wt.state.database}".encode(), end=True)

    async def datagrams():
        async for data in wt.datagrams:
            await wt.datagrams.send(data[::-1])

    echo = asyncio.create_task(datagrams())
    try:
        async for stream in wt.streams():
            content = await stream.read_to_end()
            if content == b"close":
                await wt.close(9, "asked")
            elif stream.is_bidirectional:
                await stream.write(content.upper(), end=True)
    finally:
        echo.cancel()


api = FastAPI(lifespan=lifespan)
api.routes.append(WebTransportRoute("/live/{room}", live))
rooms = APIRouter(prefix="/rooms")
# What is appended has the whole path: a router puts its own prefix before the paths of its decorators only.
rooms.routes.append(WebTransportRoute("/rooms/{room}", live))


@rooms.get("/{room}")
def room_page(room: str):
    return {"page": room}


floors = APIRouter()
floors.routes.append(WebTransportRoute("/only/{room}", live))
floors.include_router(rooms, prefix="/floor/{floor}")
api.include_router(floors, prefix="/building")


@api.get("/sync")
def sync_endpoint():
    return {"thread": threading.current_thread() is not threading.main_thread()}


@api.get("/state")
async def state(request: Request):
    return {"database": request.state.database, "task": asyncio.current_task() is not None}


@api.post("/items")
async def items(item: Item):
    return {"name": item.name, "total": item.price * 2}


@api.post("/upload")
async def upload(file: UploadFile):
    content = await file.read()
    return {"name": file.filename, "size": len(content), "sum": sum(content)}


@api.get("/events")
async def events():
    async def produce():
        for number in range(3):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(produce(), media_type="text/event-stream")


@api.websocket("/ws")
async def ws(websocket: WebSocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text.upper())


app = with_webtransport(api)


def make():
    return app
