"""The five ways from a visitor to the application: two frps with one frpc each, one of them called with a plugin."""

import json
import os

from harness import process
from harness.measure import Backend, get

from .fleet import Frpc, Frps, Gateway, Haproxy, answers, port, proxy
from .load import HOST

PLAIN, TAKEN = "plain vhost", "gateway, takeover"


class Way:
    """One way: where a visitor goes, and which programs work on it."""

    def __init__(self, name, port, **programs):
        self.name, self.port, self.programs = name, port, programs

    def pids(self):
        """Of its programs, by what tables call them: proxy, frps, frpc."""
        return {role: program.pid for role, program in self.programs.items()}


class DemoApp:
    """The demo application of loadtest, an ordinary web server; it can't tell how many connections it got."""

    name = "demo-app"

    def __init__(self, binary, log):
        self.ports = [port()]
        self.child = process.start([binary, "--listen", f"127.0.0.1:{self.ports[0]}", "--name", "demo"], process.LOAD_CORES, log)
        process.wait_until(self._listens, 10, "the demo application")

    def _listens(self):
        try:
            return self.count()["accepted"] == 0
        except OSError:
            return False

    def count(self):
        """Answers given so far."""
        return {"answered": [int(get(self.ports[0], "/count")[2])], "accepted": 0}


class Ways:
    """Everything there is in one mode: all up at the same time, on `cores`; the application on `load_cores`."""

    def __init__(self, bench, cores, load_cores):
        self.bench = bench
        kind = DemoApp if bench.demo else Backend
        bench.backend = kind(bench.tool("demo-app" if bench.demo else "backend"), os.path.join(bench.run_dir, "backend.log"))
        local, path = bench.backend.ports[0], bench.path
        pin(bench.backend.child.pid, load_cores)
        tunnels = [port() for _ in range(2)]
        plugin = port()
        plain = Frps(bench, "frps-plain", cores, (tunnels[0], tunnels[0])).start()
        taken = Frps(bench, "frps-taken", cores, (tunnels[1], tunnels[1]), plugin)
        haproxy = Haproxy(bench, "haproxy", cores)
        vhost = Gateway(bench, "gateway-vhost", cores)
        takeover = Gateway(bench, "gateway-takeover", cores, plugin)
        self.programs = [plain, taken, haproxy, vhost, takeover]

        web = proxy("web", "http", local, customDomains=f'["{HOST}"]')
        plain_frpc = Frpc(bench, "frpc-plain", cores, plain, "u1")
        plain_frpc.start([web, proxy("raw", "tcp", local, remotePort=tunnels[0])])
        plain_frpc.wait(lambda: answers(plain.vhost, path, HOST) and answers(tunnels[0], path, HOST), "plain frps serving")
        vhost.start("\n".join(["frps:", plain.yaml(admin=False, plugin=False), "pools: [ { name: app, frps: all } ]",
                               f"routes: [ {{ name: app, match: {{ host: {HOST} }}, pools: [app] }} ]"]))
        haproxy.start(plain.vhost, HOST, path)
        taken.start()
        takeover.start("\n".join(["frps:", taken.yaml(), "tunnels: { serve: true }"]))
        taken_frpc = Frpc(bench, "frpc-taken", cores, taken, "u2")
        taken_frpc.start([web])
        self.programs += [plain_frpc, taken_frpc]
        frp = {"frps": plain, "frpc": plain_frpc}
        self.all = [
            Way(PLAIN, plain.vhost, **frp),
            Way("haproxy, vhost", haproxy.port, proxy=haproxy, **frp),
            Way("gateway, vhost", vhost.port, proxy=vhost, **frp),
            Way(TAKEN, takeover.port, proxy=takeover, frps=taken, frpc=taken_frpc),
            Way("raw tcp tunnel", tunnels[0], **frp),
        ]
        for way in self.all:
            process.wait_until(lambda way=way: answers(way.port, path, HOST), 20, f"{way.name} serving ({taken_frpc.messages()})")
        self.prove(taken)

    def prove(self, taken):
        """Raises unless the takeover is one: frps has a tcp tunnel of it and its vhost doesn't know the host."""
        listed = taken.ask("/api/v2/proxies?status=online")["data"]["items"]
        kinds = [item["spec"]["type"] for item in listed]
        if kinds != ["tcp"] or answers(taken.vhost, self.bench.path, HOST):
            raise process.Invalid(f"frps has {kinds} instead of one tcp tunnel: nothing was taken over")

    def pids(self):
        """Of everything, the application included."""
        return [program.pid for program in self.programs] + [self.bench.backend.child.pid]

    def stop(self):
        """Ends them."""
        for program in self.programs:
            program.stop()
        process.stop(self.bench.backend.child)


def pin(pid, cores):
    """Every thread of a process onto `cores`."""
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), cores)
