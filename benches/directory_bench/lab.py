"""Five frps with a plugin block, one frpc of 1,000 http tunnels on each, and the gateway that they call."""

import os
import time

from harness import process
from harness.measure import Backend
from takeover_bench.fleet import KEY, Frpc, Frps, Gateway, answers, port, proxy
from takeover_bench.load import HOST

SERVERS = 5
EACH = 1000
SPARE = 300  # ports of an frps beyond those of its 1,000 tunnels
FIRST_PORT = 20_000  # all below the system's ephemeral ports
EVERYWHERE = set(range(os.cpu_count() or 1))


def host(server, number):
    """Domain of a tunnel. Those on the first frps are what benches/src/bin/fixed_rate.rs asks for."""
    return f"h{number}.example.com" if server == 0 else f"t{number}.s{server}.test"


class Fleet:
    """The frps, their frpc and `main`, the gateway that is their plugin."""

    def __init__(self, bench):
        self.bench, self.programs = bench, []
        bench.fleet = self
        bench.backend = Backend(bench.tool("backend"), os.path.join(bench.run_dir, "backend.log"))
        os.sched_setaffinity(bench.backend.child.pid, EVERYWHERE)
        self.local = bench.backend.ports[0]
        self.plugin = port()
        self.servers = []
        for number in range(SERVERS):
            first = FIRST_PORT + number * (EACH + SPARE)
            frps = Frps(bench, f"s{number}", EVERYWHERE, (first, first + EACH + SPARE - 1), self.plugin)
            self.servers.append(self.add(frps))
        self.main = self.add(Gateway(bench, "main", EVERYWHERE, self.plugin))
        for frps in self.servers:
            frps.start()
        self.main.start(self.yaml())
        self.frpcs = []

    def add(self, program):
        """It belongs to the run."""
        self.programs.append(program)
        return program

    def yaml(self, servers=None, admin=True, plugin=True):
        """A gateway's file: these frps, and a route straight to the application for `HOST`."""
        entries = [one.yaml(admin, plugin) for one in (self.servers if servers is None else servers)]
        entries.append(f"  - {{ name: direct, host: 127.0.0.1, vhost_http_port: {self.local} }}")
        return "\n".join(["frps:", *entries, f"tunnels: {{ serve: {'true' if admin else 'false'} }}", "pools: [ { name: direct, frps: [direct] } ]",
                          f"routes: [ {{ name: direct, match: {{ host: {HOST} }}, pools: [direct] }} ]"])

    def gateway(self, name):
        """One more gateway, which no frps calls: it shares the key, so it understands what was sealed."""
        return self.add(Gateway(self.bench, name, EVERYWHERE, port()))

    def register(self):
        """Starts the 5,000 tunnels; seconds until the last of them was served."""
        begin = time.monotonic()
        for number, frps in enumerate(self.servers):
            frpc = self.add(Frpc(self.bench, f"c{number}", EVERYWHERE, frps, f"u{number}"))
            frpc.start([proxy(f"web{n}", "http", self.local, customDomains=f'["{host(number, n)}"]') for n in range(EACH)])
            self.frpcs.append(frpc)
        self.wait_served(self.main, 120)
        return time.monotonic() - begin

    def wait_served(self, gateway, seconds):
        """Until `gateway` serves all 5,000."""
        for number, frpc in enumerate(self.frpcs):
            for n in range(EACH):
                if n % 50 == 0 or n == EACH - 1:
                    name = host(number, n)
                    process.wait_until(lambda name=name: answers(gateway.port, "/0", name), seconds,
                                       f"{gateway.name} serving {name} ({frpc.messages()})")

    def pids(self):
        """Of everything that runs."""
        running = [program.pid for program in self.programs if program.child and program.child.poll() is None]
        return [*running, self.bench.backend.child.pid]


__all__ = ["EACH", "EVERYWHERE", "Fleet", "KEY", "SERVERS", "host"]
