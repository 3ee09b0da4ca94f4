"""Servers as processes: signals, workers, reload, sockets, settings."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from conftest import HERE, PATIENCE, Process, eventually
from wireloom import sockets
from wireloom.changes import Files
from wireloom.config import Config
from wireloom.process import BEAT, PLACE, Worker
from wireloom.supervisor import Supervisor, memory
from wt_client import dial, soon


def get(server, path, **settings):
    with httpx.Client(verify=False, timeout=PATIENCE) as client:
        return client.get(server.url + path, **settings)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_server(serve, number):
    server = serve("plain:app")
    assert get(server, "/echo").status_code == 200
    assert server.stop(number) == 0
    assert "lifespan: shut down" in server.output
    assert "Traceback" not in server.output, server.output


def test_shutdown_loses_no_accepted_request(serve):
    """Under load: whatever was accepted is answered."""
    server = serve("plain:app", tls=False)
    answers, failures = [], []
    stop = threading.Event()

    def load():
        while not stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", server.port)) as sock:
                    sock.settimeout(PATIENCE)
                    sock.sendall(b"GET /slow?0.02 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    answer = b""
                    while data := sock.recv(4096):
                        answer += data
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                # The kernel had accepted it, and the server had not: nothing was read.
                return
            (answers if answer.endswith(b"slow") else failures).append(answer)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(answers) > 50, "some load")
    server.process.send_signal(signal.SIGTERM)
    assert server.ended() == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert [failure for failure in failures if failure] == [], "a response was cut short"


def test_shutdown_waits_for_requests_and_sessions(serve):
    server = serve("plain:app", "--graceful-timeout", "20")

    async def main():
        async with dial(server) as client:
            session, _ = await client.session("/echo?draining")
            stream = session.open()
            stream.write(b"before")
            assert await soon(stream.read()) == b"before"
            slow = asyncio.ensure_future(asyncio.to_thread(get, server, "/slow?2.0"))
            await asyncio.to_thread(eventually, lambda: get(server, "/journal?slow").json()["events"])
            server.process.send_signal(signal.SIGTERM)
            stream.write(b"after")
            assert await soon(stream.read()) == b"after", "an open session goes on"
            assert (await soon(slow)).content == b"slow"
            session.close(0, "")

    asyncio.run(main())
    assert server.ended() == 0


def test_the_deadline_of_the_shutdown(serve):
    server = serve("plain:app", "--graceful-timeout", "1", "--session-grace", "0.5")

    async def main():
        async with dial(server) as client:
            session, _ = await client.session("/stubborn?x")
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            how = await soon(session.closed)
            assert how[0] == "closed" and time.monotonic() - began < PATIENCE / 2

    asyncio.run(main())
    assert server.ended() == 0


def test_a_second_signal_is_at_once(serve):
    server = serve("plain:app", "--graceful-timeout", "600", tls=False)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET /slow?600 HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: get(server, "/journal?slow").json()["events"])
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        server.ended()


def test_a_signal_during_the_start(serve, tmp_path):
    """The start may finish, and what it began is ended."""
    file = tmp_path / "start"
    server = serve("stalling:slow_start", tls=False, wait=0, env={"STALLING_FILE": str(file)})
    server.wait_for("stalling: starting")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("once more ends it at once")
    file.touch()
    assert server.ended() == 0
    eventually(lambda: "stalling: ended" in server.output, "the end of the lifespan")
    assert "serving" not in server.output, server.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_ends_a_start_that_hangs(serve, workers, number):
    arguments = ["--workers", workers, "--graceful-timeout", "600"]
    server = serve("stalling:never_starts", *arguments, tls=False, wait=0)
    server.wait_for("stalling: starting", count=int(workers))
    server.process.send_signal(number)
    server.wait_for("once more ends it at once", count=int(workers))
    server.process.send_signal(number)
    assert server.ended() == 0
    assert "Traceback" not in server.output, server.output


def test_a_second_signal_ends_an_end_that_hangs(serve):
    server = serve("stalling:never_ends", tls=False)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("stalling: ending")
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGTERM)
    assert server.ended() == 0
    assert "Traceback" not in server.output, server.output


@pytest.mark.parametrize("when", ["starting", "ending"])
def test_a_lifespan_that_ignores_its_end(serve, when):
    app = {"starting": "stalling:ignores_in_start", "ending": "stalling:ignores_in_end"}[when]
    server = serve(app, tls=False, wait=int(when == "ending"))
    if when == "starting":
        server.wait_for("stalling: starting")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("once more ends it at once")
    else:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stalling: ending")
    server.process.send_signal(signal.SIGTERM)
    assert server.ended() == 0
    eventually(lambda: "does not end when it is cancelled" in server.output, "the reason")


def test_a_request_that_ignores_its_end(serve):
    server = serve("stalling:ignores_in_request", "--graceful-timeout", "0.5", tls=False)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for("stalling: requested")
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
    eventually(lambda: "does not end when it is cancelled" in server.output, "the reason")


def test_tasks_that_the_end_cancels_are_no_exceptions(serve):
    server = serve("plain:app", "--graceful-timeout", "600", tls=False)
    handshake = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n"
    with (
        socket.create_connection(("127.0.0.1", server.port)) as request,
        socket.create_connection(("127.0.0.1", server.port)) as websocket,
    ):
        request.sendall(b"GET /slow?600 HTTP/1.1\r\nHost: x\r\n\r\n")
        websocket.sendall(b"GET /deaf HTTP/1.1\r\nHost: x\r\n" + handshake % b"dGhlIHNhbXBsZSBub25jZQ==" + b"\r\n")
        websocket.settimeout(PATIENCE)
        assert b" 101 " in websocket.recv(1024)
        eventually(lambda: get(server, "/journal?slow").json()["events"])
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("once more ends it at once")
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
    eventually(lambda: "2 tasks of the application were cancelled" in server.output, "what was cut off")
    assert "Traceback" not in server.output, server.output


def test_system_exit_of_an_application_ends_the_server(serve):
    server = serve("plain:app")
    with contextlib.suppress(httpx.HTTPError):
        get(server, "/exit")
    assert server.ended() == 7


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_application_that_does_not_start(workers):
    process = Process(["failing:refuses", "--port", "0", "--workers", workers], cwd=HERE / "apps")
    assert process.ended() == 3
    eventually(lambda: "no database" in process.output, "the reason")


def test_an_application_without_lifespan(serve):
    assert get(serve("failing:raises"), "/").text == "served"
    process = Process(["failing:raises", "--port", "0", "--lifespan", "on"], cwd=HERE / "apps")
    assert process.ended() == 3


def text(server, path="/"):
    """`None` from a server that is being replaced: its end cuts connections that have just been opened."""
    try:
        return get(server, path).text
    except httpx.TransportError:
        return None


def pids(server, count=60):
    return {pid for _ in range(count) if (pid := text(server, "/pid"))}


def test_workers(serve):
    server = serve("plain:app", "--workers", "2", wait=2)
    both = eventually(lambda: (found := pids(server)) and len(found) == 2 and found, "both workers")
    victim = next(iter(both))
    os.kill(int(victim), signal.SIGKILL)
    server.wait_for("is replaced")
    server.started(3)
    others = eventually(lambda: (found := pids(server)) and len(found) == 2 and found, "the new worker")
    assert victim not in others
    # SIGHUP replaces all of them.
    server.process.send_signal(signal.SIGHUP)
    server.started(5)
    eventually(lambda: len(found := pids(server)) == 2 and not found & others, "new workers")
    assert server.stop() == 0
    for pid in both | others:
        assert not os.path.exists(f"/proc/{pid}")


@pytest.fixture
def gated(serve, tmp_path):
    """Two workers that start when the file is there."""
    file = tmp_path / "start"
    file.touch()
    environment = {"STALLING_FILE": str(file)}
    server = serve("stalling:slow_start", "--workers", "2", "--lifespan", "on", tls=False, wait=2, env=environment)
    return server, file


def workers(server):
    """The process of each worker that is or was, in order."""
    found = [re.search(r"worker (\d) is process (\d+)", line) for line in list(server.lines)]
    return {n: [match[2] for match in found if match and match[1] == n] for n in ("0", "1")}


def test_workers_are_replaced_one_by_one(gated):
    server, file = gated
    before = workers(server)
    file.unlink()
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("stalling: starting", count=3)
    # The other goes on until the new one serves.
    assert pids(server, 20) == set(before["1"])
    assert workers(server)["1"] == before["1"]
    file.touch()
    server.started(4)
    after = workers(server)
    assert [len(after[n]) for n in ("0", "1")] == [2, 2]
    eventually(lambda: pids(server) == {after["0"][1], after["1"][1]}, "the new workers")
    assert server.stop() == 0


@pytest.mark.parametrize("how", ["told to", "crashed"])
def test_workers_that_do_not_start_again_leave_the_others(gated, how):
    server, file = gated
    before = workers(server)
    file.write_text("fail")
    if how == "crashed":
        os.kill(int(before["0"][0]), signal.SIGKILL)
    else:
        server.process.send_signal(signal.SIGHUP)
    server.wait_for("worker 0 could not start", count=2)
    assert pids(server, 20) == set(before["1"])
    file.write_text("")
    server.started(3 if how == "crashed" else 4)
    after = workers(server)
    assert len(after["1"]) == (1 if how == "crashed" else 2), "what was begun is completed"
    eventually(lambda: pids(server) == {after["0"][-1], after["1"][-1]}, "both workers")
    assert server.stop() == 0


def test_a_signal_replaces_workers_that_hang_in_their_start(gated):
    server, file = gated
    before = workers(server)
    file.unlink()
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("stalling: starting", count=3)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("stalling: starting", count=4)
    assert [len(workers(server)[n]) for n in ("0", "1")] == [3, 1]
    assert pids(server, 20) == set(before["1"])
    file.touch()
    server.started(4)
    assert server.stop() == 0


@pytest.mark.parametrize("loop", ["wireloom", "asyncio"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_hangs_is_replaced(serve, count, loop):
    given = ["--workers", str(count), "--worker-timeout", "2", "--loop", loop]
    server = serve("stalling:plain", *given, tls=False, wait=count)
    before = workers(server)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for("stalling: stands still")
        server.wait_for(r"worker \d has done nothing for \S+ seconds and is replaced")
        server.wait_for("in stand_still")
        server.started(count + 1)
    after = workers(server)
    assert sum(len(found) for found in after.values()) == count + 1
    # The others are left alone.
    assert all(found[: len(before[n])] == before[n] for n, found in after.items())
    assert get(server, "/").status_code == 200
    assert server.stop() == 0


def test_silence_is_not_the_sleep_of_the_machine():
    board = memory(2 * PLACE)
    process = subprocess.Popen([sys.executable, "-c", ""])
    worker = Worker(1, process, 0.0, -1)
    worker.listen(board, 100.0)
    assert worker.silence == 0, "it may take its time to start"
    worker.serves = True
    for _ in range(3):
        worker.listen(board, 100.0)
    assert worker.silence == 3
    os.pwrite(board, b"\1", PLACE + BEAT)
    worker.listen(board, 100.0)
    assert worker.silence == 0
    os.close(board)
    process.wait()


def test_a_process_that_cannot_be_made_is_tried_again(monkeypatch):
    def fail(*_, **__):
        raise BlockingIOError("no more processes")

    supervisor = Supervisor(Config(app="plain:app", workers=2), [])
    monkeypatch.setattr(subprocess, "Popen", fail)
    supervisor._start(1)
    assert list(supervisor._retry_at) == [1] and not supervisor._workers


def test_a_migrating_client_stays_with_its_worker(serve):
    """Connection ids lead the packets of a client whose address changes to the worker that knows it."""
    server = serve("plain:app", "--workers", "4", wait=4)

    async def main():
        for number in range(6):
            async with dial(server) as client:
                session, _ = await client.session(f"/echo?migration-{number}")
                stream = session.open()
                stream.write(b"before")
                assert await soon(stream.read()) == b"before"
                # A new socket, so another port: without the ids' help three in four go astray.
                loop = asyncio.get_running_loop()
                transport, _ = await loop.create_datagram_endpoint(lambda c=client: c, local_addr=("::", 0))
                stream.write(b"after")
                assert await soon(stream.read()) == b"after"
                session.close(0, "")
                transport.close()

    asyncio.run(asyncio.wait_for(main(), 120))
    assert server.stop() == 0


def test_metrics_are_those_of_all_workers(serve):
    server = serve("plain:app", "--workers", "3", "--metrics", wait=3)
    asked = 0

    def ask():
        nonlocal asked
        asked += 1
        return httpx.get(f"{server.url}/pid", verify=False, timeout=60).text

    def metric(name):
        text = httpx.get(f"{server.url}/metrics", verify=False, timeout=60).text
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))

    seen = set()
    eventually(lambda: seen.add(ask()) or len(seen) == 3, "an answer of each worker")
    assert metric("wireloom_calls_total") <= asked
    eventually(lambda: metric("wireloom_calls_total") == asked, "the sum")
    # These questions are answered with 200, too.
    eventually(lambda: metric('wireloom_responses_total{class="2xx"}') >= asked, "the sum of responses")
    # Counters outlive those who counted.
    server.process.send_signal(signal.SIGHUP)
    server.started(6)
    eventually(lambda: ask() not in seen and ask() not in seen and ask() not in seen, "new workers")
    eventually(lambda: metric("wireloom_calls_total") == asked, "the sum")
    # What others have told may be of a moment when they were busy.
    eventually(lambda: metric("wireloom_calls_active") == 0, "an end of all calls")


def test_workers_end_with_their_parent(serve):
    server = serve("plain:app", "--workers", "2", wait=2)
    both = eventually(lambda: (found := pids(server)) and len(found) == 2 and found, "both workers")
    server.process.kill()
    server.process.wait()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in both), "the end of the workers")


def test_workers_that_do_not_start_end_with_their_parent(serve):
    server = serve("stalling:never_starts", "--workers", "2", "--graceful-timeout", "0.2", tls=False, wait=0)
    server.wait_for("stalling: starting", count=2)
    both = [match[1] for match in server.wait_for(r"worker \d is process (\d+)", count=2)]
    server.process.kill()
    server.process.wait()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in both), "the end of the workers")


def test_a_signal_after_the_limit_of_requests_is_the_first(serve):
    server = serve("plain:app", "--limit-max-requests", "3", "--graceful-timeout", "600", tls=False)
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.settimeout(PATIENCE)
        sock.sendall(b"GET /slow?2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        eventually(lambda: get(server, "/journal?slow").json()["events"])
        text(server, "/echo")
        server.wait_for("limit of requests is reached")
        server.process.send_signal(signal.SIGTERM)
        answer = b""
        while data := sock.recv(4096):
            answer += data
    assert answer.endswith(b"slow"), answer
    assert server.ended() == 0


def test_max_requests(serve):
    server = serve("plain:app", "--workers", "1", "--limit-max-requests", "10", "--reload")
    first = get(server, "/pid").text
    for _ in range(12):
        text(server, "/echo")
    server.wait_for("limit of requests is reached")
    server.started(2)
    assert eventually(lambda: text(server, "/pid")) != first


def test_reload(serve, tmp_path):
    source = (
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'http':\n"
        "        await send({'type': 'http.response.start', 'status': 200})\n"
        "        await send({'type': 'http.response.body', 'body': b'%s'})\n"
        "    else:\n"
        "        raise NotImplementedError\n"
    )
    module = tmp_path / "changing.py"
    module.write_text(source % "first")
    server = serve("changing:app", "--reload", cwd=tmp_path)
    assert get(server, "/").text == "first"
    module.write_text(source % "the second")
    eventually(lambda: text(server) == "the second", "the new version")
    module.write_text("nonsense(")
    server.wait_for("SyntaxError")
    module.write_text(source % "the third and last")
    eventually(lambda: text(server) == "the third and last", "the repaired version")
    assert server.stop() == 0


def test_which_files_are_watched(tmp_path):
    watched = ["app.py", "package/module.py", "templates/page.html", "package/env.txt"]
    ignored = [
        *(
            "page.html",
            ".git/hook.py",
            "venv/lib/a.py",
            "env/lib/a.py",
            "node_modules/b.py",
            "package/__pycache__/c.py",
        ),
        *("generated/d.py", "package/big/e.py", "package/test_f.py"),
    ]
    for name in [*watched, *ignored, "env/pyvenv.cfg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("first")
    files = Files(
        Config(
            reload_dirs=[str(tmp_path)],
            reload_include=["templates/*.html", str(tmp_path / "package" / "env.*")],
            reload_exclude=["generated/", "package/big", "test_*"],
        )
    )
    assert files.changed() == []
    for name in [*watched, *ignored]:
        os.utime(tmp_path / name, (1, 1))
    assert files.changed() == sorted(str(tmp_path / name) for name in watched)
    assert files.changed() == []
    (tmp_path / "app.py").unlink()
    (tmp_path / "new.py").write_text("new")
    assert files.changed() == [str(tmp_path / "app.py"), str(tmp_path / "new.py")]


def test_a_unix_socket(serve, tmp_path):
    path = tmp_path / "socket"
    given = ["--uds", str(path), "--uds-permissions", "0660", "--forwarded-allow-ips", "unix"]
    process = Process(["plain:app", *given], cwd=HERE / "apps")
    try:
        process.wait_for("serving plain:app on")
        assert path.stat().st_mode & 0o777 == 0o660
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=PATIENCE) as client:
            headers = {"x-forwarded-for": "198.51.100.7", "x-forwarded-proto": "https"}
            scope = client.get("http://example.test/scope", headers=headers).json()
        assert scope["client"] == ["198.51.100.7", 0]
        assert scope["scheme"] == "https"
        assert process.stop() == 0
        assert not path.exists()
    finally:
        process.process.kill()


def test_connections_over_a_unix_socket_are_not_of_one_address(tmp_path):
    path = str(tmp_path / "socket")
    arguments = ["plain:app", "--uds", path, "--limit-connections-per-address", "1", "--limit-connections", "2"]
    process = Process(arguments, cwd=HERE / "apps")
    try:
        process.wait_for("serving plain:app on")

        def is_served(sock):
            sock.settimeout(PATIENCE)
            sock.connect(path)
            try:
                sock.sendall(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
                return sock.recv(1024).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

        with contextlib.ExitStack() as stack:
            kept = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
            assert [is_served(sock) for sock in kept] == [True, True, False]
        assert process.stop() == 0
    finally:
        process.process.kill()


def test_a_unix_socket_that_another_has_taken_over_stays(tmp_path):
    path = tmp_path / "socket"
    processes = []
    try:
        for _ in range(2):
            process = Process(["plain:app", "--uds", str(path)], cwd=HERE / "apps")
            processes.append(process)
            process.wait_for("serving plain:app on")
        assert path.stat().st_mode & 0o777 == 0o666
        assert processes[0].stop() == 0
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=PATIENCE) as client:
            assert client.get("http://example.test/echo").status_code == 200
        assert processes[1].stop() == 0
        assert not path.exists()
    finally:
        for process in processes:
            process.process.kill()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_file_with_the_number_of_the_process(serve, tmp_path, workers):
    path = tmp_path / "pid"
    server = serve("plain:app", "--pid-file", str(path), "--workers", workers, tls=False, wait=int(workers))
    assert path.read_text() == f"{server.process.pid}\n"
    assert server.stop() == 0
    assert not path.exists()


def test_any_address_of_both_families(serve):
    server = serve("plain:app", "--host", "0.0.0.0", "--host", "::")
    for host in ("127.0.0.1", "[::1]"):
        assert httpx.get(f"https://{host}:{server.port}/echo", verify=False, timeout=PATIENCE).status_code == 200


def test_a_name_of_which_one_address_is_not_here(monkeypatch):
    """As localhost where IPv6 is switched off."""
    resolve = socket.getaddrinfo

    def with_a_foreign_address(host, *arguments, **named):
        found = resolve(host, *arguments, **named)
        return [(*entry[:4], ("192.0.2.1", entry[4][1])) for entry in found] + found

    monkeypatch.setattr(socket, "getaddrinfo", with_a_foreign_address)
    addresses = sockets.bind(Config(host=["127.0.0.1"], port=0))
    try:
        assert [address.tcp.getsockname()[0] for address in addresses] == ["127.0.0.1"]
    finally:
        sockets.close(addresses)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **n: with_a_foreign_address(*a, **n)[:1])
    with pytest.raises(OSError, match="assign"):
        sockets.bind(Config(host=["127.0.0.1"], port=0))


def test_descriptors_of_workers_are_not_inherited(serve):
    """By what an application starts, which would keep the port after the server's end."""
    server = serve("plain:app", "--workers", "2", wait=2)
    assert [number for number in get(server, "/inheritable").json() if number > 2] == []


def test_an_inherited_descriptor():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        package = os.environ.get("WIRELOOM_PACKAGE", str(HERE.parent / "python"))
        process = subprocess.Popen(
            [sys.executable, "-m", "wireloom", "plain:app", "--fd", str(listener.fileno())],
            cwd=HERE / "apps",
            env={**os.environ, "PYTHONPATH": package},
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            # It listens already: the request waits for the server.
            assert httpx.get(f"http://127.0.0.1:{port}/echo", timeout=PATIENCE).status_code == 200
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0


def test_forwarded_addresses_of_strangers_are_not_believed(serve):
    server = serve("plain:app", "--forwarded-allow-ips", "10.0.0.0/8", tls=False)
    headers = {"x-forwarded-for": "198.51.100.7", "x-forwarded-proto": "https"}
    scope = get(server, "/scope", headers=headers).json()
    assert (scope["client"][0], scope["scheme"]) == ("127.0.0.1", "http")
    trusting = serve("plain:app", tls=False)
    headers["x-forwarded-for"] = "203.0.113.9, 198.51.100.7, 127.0.0.1"
    scope = get(trusting, "/scope", headers=headers).json()
    assert (scope["client"][0], scope["scheme"]) == ("198.51.100.7", "https")


def test_the_limit_of_concurrency(serve):
    server = serve("plain:app", "--limit-concurrency", "2", tls=False)
    with (
        socket.create_connection(("127.0.0.1", server.port)) as one,
        socket.create_connection(("127.0.0.1", server.port)) as two,
    ):

        def is_full():
            # Again, as the first questions may have been refused because of this one.
            for sock in (one, two):
                sock.sendall(b"GET /slow?3 HTTP/1.1\r\nHost: x\r\n\r\n")
            return get(server, "/echo").status_code == 503

        eventually(is_full, "the limit")
    eventually(lambda: get(server, "/echo").status_code == 200, "room again")


def test_environment_and_file(serve, tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text('root_path = "/base"\nheaders = ["x-from: file"]\nlog-level = "debug"\n')
    server = serve(
        "plain:app", "--config", str(config), env={"WIRELOOM_HEADERS": "x-from:environment,x-more:1"}, tls=False
    )
    answer = get(server, "/scope")
    assert (answer.headers["x-from"], answer.headers["x-more"]) == ("environment", "1")
    assert json.loads(answer.text)["root_path"] == "/base"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere:app"], "no module"),
        (["plain:nothing"], "no attribute"),
        (["plain"], "module:attribute"),
        (["missing_one:app"], "No module named 'missing'"),
        (["failing:factory", "--factory"], "return len(7)"),
        (["plain:app", "--factory"], "cannot be called without arguments"),
        (["plain:JOURNAL"], "cannot be called"),
        ([], "which application"),
        (["plain:app", "--certfile", "x"], "go together"),
        (["plain:app", "--port", "70000"], "below 65536"),
        (["plain:app", "--static", "x"], "path=folder"),
        (["plain:app", "--certfile", "missing.pem", "--keyfile", "missing.pem"], "missing.pem"),
    ],
)
def test_mistakes_are_explained(arguments, says):
    process = Process(arguments, cwd=HERE / "apps")
    assert process.ended() not in (0, -signal.SIGKILL)
    eventually(lambda: says in process.output, says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--graceful-timeout", "-1"], "--graceful-timeout is a number from 0"),
        (["--keep-alive", "inf"], "--keep-alive is a number from 0"),
        (["--session-grace", "nan"], "--session-grace is a number from 0"),
        (["--limit-concurrency", "-1"], "--limit-concurrency is a number from 0"),
        (["--header", "bad name:x"], "invalid HTTP header name"),
        (["--access-log-format", "%(nope)s"], "nope"),
        (["--access-log-file", "missing/log"], "missing/log"),
        (["--log-config", "missing.json"], "--log-config missing.json"),
        (["--metrics", "metrics"], "--metrics is a path"),
        (["--redirect-port", "80"], "needs a certificate"),
        (["--uds-permissions", "rw"], "octal digits, as 660, not 'rw'"),
        (["--pid-file", "missing/pid"], "--pid-file: .*missing/pid"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_settings_that_cannot_be_are_explained(arguments, says, workers):
    process = Process(["plain:app", "--port", "0", "--workers", workers, *arguments], cwd=HERE / "apps")
    assert process.ended() not in (0, -signal.SIGKILL)
    process.wait_for(says)
    assert "Traceback" not in process.output, process.output


def test_the_application_after_a_flag_without_its_value():
    process = Process(["--metrics", "plain:app"], cwd=HERE / "apps")
    assert process.ended() == 2
    eventually(lambda: "--metrics is a path" in process.output)


def test_empty_variables_are_none(serve):
    empty = {f"WIRELOOM_{name}": "" for name in ["UDS", "FD", "CERTFILE", "METRICS", "WORKERS", "CONFIG", "LOG_LEVEL"]}
    assert get(serve("plain:app", env=empty, tls=False), "/echo").status_code == 200


def test_a_port_that_is_taken(serve):
    server = serve("plain:app", tls=False)
    process = Process(["plain:app", "--port", str(server.port)], cwd=HERE / "apps")
    assert process.ended() == 1
    eventually(lambda: "cannot listen" in process.output)


@pytest.mark.parametrize("tls", [False, True])
def test_the_limits_of_connections(serve, tls):
    def served(*arguments):
        """How many of three connections are answered at the same time."""
        server = serve("plain:app", *arguments, tls=tls)

        def is_served(client):
            try:
                return client.get(f"{server.url}/echo").status_code == 200
            except httpx.TransportError:
                return False

        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(httpx.Client(verify=False, timeout=PATIENCE)) for _ in range(3)]
            return sum([is_served(client) for client in clients])

    assert served("--limit-connections", "2") == 2
    assert served("--no-proxy-headers", "--limit-connections-per-address", "1") == 1
    assert served("--limit-connections-per-address", "1") == 3, "a proxy's clients have its address"
