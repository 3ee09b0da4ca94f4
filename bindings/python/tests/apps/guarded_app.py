"""FastAPI with dependencies before its sessions."""

from typing import Annotated

from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, HTTPException, Query, Request, WebSocketException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket
from wireloom.fastapi import WebTransport, webtransport, with_webtransport
from wireloom.starlette import WebTransportRoute


async def nobody_from_mars(connection: HTTPConnection, planet: Annotated[str, Header()] = "earth"):
    if planet == "mars":
        raise HTTPException(451, headers={"x-planet": planet})
    connection.state.planet = planet


def named(request: Request, name: str | None = None):
    if name is None:
        raise HTTPException(401)
    return f"{name} of {request.state.planet}, {request.method}"


async def paid(websocket: WebSocket):
    if "free" in websocket.query_params:
        raise WebSocketException(1008)


async def resource():
    print("resource: opened", flush=True)
    yield "resource"
    print("resource: closed", flush=True)


def replaced():
    return "original"


bearer = HTTPBearer()
api = FastAPI(dependencies=[Depends(nobody_from_mars)])


@webtransport(api, "/rooms/{room}", dependencies=[Depends(paid)])
async def room(
    session: WebTransport,
    room: int,
    name: Annotated[str, Depends(named)],
    opened: Annotated[str, Depends(resource)],
    other: Annotated[str, Depends(replaced)],
    tag: Annotated[list[str], Query()] = [],  # noqa: B006
    flavour: Annotated[str, Cookie()] = "none",
):
    await session.accept()
    await session.datagrams.send(f"{room} {name} {opened} {other} {tag} {flavour}".encode())
    await session.closed()


@api.get("/rooms/{room}")
def page(room: int):
    return {"page": room}


@api.websocket("/rooms/{room}")
async def socket(websocket: WebSocket, room: int):
    await websocket.accept()
    await websocket.send_text(f"socket {room}")
    await websocket.close()


async def plain(wt: WebTransport):
    await wt.accept()
    await wt.datagrams.send(f"plain {wt.state.planet}".encode())
    await wt.closed()


api.routes.append(WebTransportRoute("/plain", plain))

inner = APIRouter(prefix="/inner", dependencies=[Depends(named)])


@webtransport(inner, "/decorated")
async def decorated(wt: WebTransport, token: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]):
    await wt.accept()
    await wt.datagrams.send(token.credentials.encode())
    await wt.closed()


inner.routes.append(WebTransportRoute("/inner/plain", plain))
outer = APIRouter()
outer.include_router(inner, prefix="/outer", dependencies=[Depends(paid)])
api.include_router(outer)

sub = FastAPI(dependencies=[Depends(named)])
sub.routes.append(WebTransportRoute("/plain", plain))
sub.dependency_overrides[named] = nobody_from_mars
api.mount("/sub", sub)

api.dependency_overrides[replaced] = lambda: "replaced"
app = with_webtransport(api)
