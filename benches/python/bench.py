"""What the servers here have in common: the control stream's requests, and this process's figures."""

import argparse
import json
import os
import sys
import threading
import time

START = time.monotonic()
CHUNK = bytes(64 << 10)


class Counters:
    bytes = 0
    streams = 0
    datagrams = 0


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", required=True, help="PEM file")
    parser.add_argument("--key", required=True, help="PEM file")
    parser.add_argument("--max-streams", type=int, default=1024)
    return parser.parse_args()


def listening(port):
    """Tells where, and ends the process with its input."""
    print(
        json.dumps({"event": "listening", "address": f"127.0.0.1:{port}"}), flush=True
    )

    def wait():
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def stats():
    usage = os.times()
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return {
        "clock_seconds": time.monotonic() - START,
        "cpu_seconds": usage.user + usage.system,
        "rss_bytes": pages * 4096,
        "bytes": Counters.bytes,
        "streams": Counters.streams,
        "datagrams": Counters.datagrams,
    }


def answer(line, begin):
    """The answer to a line of the control stream; `begin` is told the workload."""
    request = json.loads(line)
    if "stats" in request:
        answer = stats()
    else:
        begin(request["workload"])
        answer = {"ok": True}
    return json.dumps(answer).encode() + b"\n"
