"""How soon a new tunnel is served: by a gateway that frps calls, by one that only polls, and by frps alone."""

import random
import socket
import threading
import time

from harness import process
from takeover_bench.fleet import Frpc, Frps, port, proxy

from .lab import EVERYWHERE

PATIENCE = 15.0  # s


def changes(fleet, number):
    """`number` tunnels, one after the other at random moments: for each and each watcher, ms from the frpc's reload to its
    first 200. `frps` is a server of its own without any plugin, asked at its vhost."""
    bench = fleet.bench
    polling = fleet.gateway("polling").start(fleet.yaml())
    fleet.wait_served(polling, 30)
    alone = fleet.add(Frps(bench, "alone", EVERYWHERE, (port(),) * 2).start())
    taken_frpc = fleet.add(Frpc(bench, "changing", EVERYWHERE, fleet.servers[1], "changing").start([]))
    alone_frpc = fleet.add(Frpc(bench, "changing-alone", EVERYWHERE, alone, "changing").start([]))
    for frpc in (taken_frpc, alone_frpc):
        frpc.wait(lambda frpc=frpc: _reloads(frpc), f"{frpc.name} taking orders")
    chance, rows, watchers = random.Random(1), {"push": [], "poll": [], "frps": []}, []
    proxies = []
    try:
        for n in range(number):
            time.sleep(0.4 + chance.random() * 0.4)
            name = f"new{n}.change.test"
            proxies.append(proxy(f"new{n}", "http", fleet.local, customDomains=f'["{name}"]'))
            for frpc, asked in ((taken_frpc, {"push": fleet.main.port, "poll": polling.port}), (alone_frpc, {"frps": alone.vhost})):
                frpc.configure(proxies)
                begin = time.monotonic()
                for key, asked_port in asked.items():
                    watchers.append(threading.Thread(target=_watch, args=(asked_port, name, begin, rows[key], 0.01 if key == "poll" else 0.0005)))
                    watchers[-1].start()
                frpc.reload()
        for watcher in watchers:
            watcher.join(PATIENCE + 5)
    finally:
        for program in (polling, taken_frpc, alone_frpc, alone):
            program.stop()
    return rows


def _reloads(frpc):
    try:
        frpc.reload()
        return True
    except (OSError, process.Invalid):
        return False


def _watch(port, host, begin, took, pause):
    """Asks again and again, on one connection while it lasts; None after `PATIENCE`."""
    request = f"GET /0 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    stream = None
    while time.monotonic() - begin < PATIENCE:
        try:
            if stream is None:
                stream = socket.create_connection(("127.0.0.1", port), 5)
            stream.sendall(request)
            head = stream.recv(1 << 16)
        except OSError:
            head = b""
        if head.startswith(b"HTTP/1.1 200"):
            took.append(1e3 * (time.monotonic() - begin))
            break
        stream = stream and stream.close()  # an answer that isn't 200 has a body: simplest is a new connection
        time.sleep(pause)
    else:
        took.append(None)
    if stream:
        stream.close()
