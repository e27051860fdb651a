"""Streams of 64 KiB and 1 MiB on kept connections, and one byte on a fresh one: per second, and CPU of the proxy per stream.

The proxy has one thread on core 0, application and load have core 1. Contestants take turns within each round, so that what
else the machine does meets all of them alike. `direct` is the load without a proxy: the ceiling.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import tempfile
import time

from harness import install, process

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RESULTS = os.path.join(ROOT, "benches", "results")
SCENARIOS = {  # bytes, connections, a fresh connection for each
    "64 KiB": (64 * 1024, 16, False),
    "1 MiB": (1024 * 1024, 16, False),
    "connections": (1, 16, True),
}

GATEWAY = """runtime: {{ workers: 1 }}
admin: {{ listen: "127.0.0.1:{admin}" }}
listeners: [ {{ name: raw, bind: "127.0.0.1:{port}", protocol: tcp, pool: raw }} ]
frps: [ {{ name: a, host: 127.0.0.1 }} ]
pools: [ {{ name: raw, port: {app} }} ]
"""
HAPROXY = """global
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    {splice}
listen raw
    bind 127.0.0.1:{port}
    server a 127.0.0.1:{app}
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until_listening(port, child, what):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if child.poll() is not None:
            raise SystemExit(f"tcp: {what} ended at its start")
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"tcp: {what} doesn't listen")


def cpu_seconds(pid):
    """User and system time of a process, its threads included."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Contestant:
    """A proxy that runs, or nothing at all."""

    def __init__(self, name, folder, app, gateway):
        self.name, self.child, self.port = name, None, app
        if name == "direct":
            return
        self.port = free_port()
        path = os.path.join(folder, f"{name}.conf")
        if name == "gateway":
            text = GATEWAY.format(port=self.port, app=app, admin=free_port())
            command = [gateway, "run", "--config", path]
        else:
            splice = "option splice-request\n    option splice-response" if name == "haproxy-splice" else ""
            text = HAPROXY.format(port=self.port, app=app, splice=splice)
            command = ["haproxy", "-db", "-f", path]
        with open(path, "w") as file:
            file.write(text)
        log = os.path.join(folder, f"{name}.log")
        self.child = process.start(command, process.PROXY_CORES, log=log)
        try:
            until_listening(self.port, self.child, name)
        except SystemExit:
            with open(log) as file:
                print(file.read())
            raise

    def measure(self, streams, scenario, seconds):
        size, connections, fresh = SCENARIOS[scenario]
        before = cpu_seconds(self.child.pid) if self.child else 0
        command = [streams, "load", f"127.0.0.1:{self.port}", str(size), str(connections), str(seconds)]
        done = process.run_json(command + (["fresh"] if fresh else []), process.LOAD_CORES, seconds)
        used = cpu_seconds(self.child.pid) - before if self.child else 0
        return {"rate": done["streams"] / done["seconds"], "cpu_us": used * 1e6 / max(done["streams"], 1)}


def main():
    parser = argparse.ArgumentParser(prog="benches/tcp", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="length of one measurement (default 5)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, of which the median counts (default 5)")
    parser.add_argument("--bin", help="folder with frp-gateway and streams, built already (default: a release build)")
    parser.add_argument("--keep", action="store_true", help="write benches/results/tcp.json")
    options = parser.parse_args()
    if not options.bin:
        env = install.rust_env(ROOT)
        install.run(["cargo", "build", "--release", "-p", "frp-gateway", "-p", "frp-gateway-benches", "--bin", "frp-gateway", "--bin", "streams"], ROOT, env)
        options.bin = os.path.join(install.target_dir(ROOT), "release")
    install.debian(["haproxy"])
    process.prepare()
    streams, gateway = (os.path.abspath(os.path.join(options.bin, name)) for name in ("streams", "frp-gateway"))
    folder = tempfile.mkdtemp(prefix="tcp-bench-")
    try:
        app = free_port()
        until_listening(app, process.start([streams, "serve", f"127.0.0.1:{app}"], process.LOAD_CORES), "the application")
        names = ["direct", "haproxy", "haproxy-splice", "gateway"]
        contestants = [Contestant(name, folder, app, gateway) for name in names]
        runs = {scenario: {name: [] for name in names} for scenario in SCENARIOS}
        for number in range(options.rounds):
            for scenario in SCENARIOS:
                # Nobody is always first.
                for contestant in contestants[number % 4:] + contestants[:number % 4]:
                    runs[scenario][contestant.name].append(contestant.measure(streams, scenario, options.seconds))
    finally:
        process.stop_all()
        shutil.rmtree(folder, ignore_errors=True)
    table = {scenario: {name: {key: statistics.median(run[key] for run in all_runs) for key in ("rate", "cpu_us")}
                        for name, all_runs in of.items()} for scenario, of in runs.items()}
    print("| streams | | " + " | ".join(names) + " |\n| --- | --- | " + " | ".join("---:" for _ in names) + " |")
    for scenario, of in table.items():
        print(f"| {scenario} | a second | " + " | ".join(f"{of[name]['rate']:,.0f}" for name in names) + " |")
        print("| | CPU, µs | " + " | ".join(f"{of[name]['cpu_us']:.1f}" if name != "direct" else "–" for name in names) + " |")
    if options.keep:
        haproxy = install.output(["haproxy", "-v"]).splitlines()
        about = {"commit": install.output(["git", "rev-parse", "HEAD"], ROOT), "kernel": os.uname().release,
                 "haproxy": haproxy[0] if haproxy else "", "seconds": options.seconds, "rounds": options.rounds}
        os.makedirs(RESULTS, exist_ok=True)
        with open(os.path.join(RESULTS, "tcp.json"), "w") as file:
            json.dump({"about": about, "median": table, "runs": runs}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
