"""benches/takeover: one run from top to bottom."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time

from balance_times.report import replace
from harness import install, process
from harness.process import Invalid

from . import load, report
from .contestants import Ways

BENCHES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONNECTIONS = [1, 4, 8, 32, 128]
DEMO_CONNECTIONS = [1, 8, 32]
BURST = 50
MODES = ["unpinned", "pinned", "demo-app"]


def main():
    args = arguments()
    bench = Bench(args)
    bench.install()
    process.prepare()
    record = bench.run()
    section = report.markdown(record)
    print(section)
    write = args.write and not record["invalid"]
    path = os.path.join(BENCHES, "results", "takeover.json") if write else os.path.join(bench.target, "takeover.json")
    with open(path, "w") as file:
        json.dump(record, file, indent=1, ensure_ascii=False)
        file.write("\n")
    if write:
        replace(os.path.join(BENCHES, "RESULTS.md"), report.NAME, section)
    if record["invalid"]:
        raise SystemExit(f"takeover: invalid: {record['invalid']}")


def arguments():
    parser = argparse.ArgumentParser(
        prog="benches/takeover",
        description="One http tunnel of real frps and frpc: plain vhost, haproxy or the gateway before the vhost, the gateway with "
                    "takeover, the raw tcp tunnel; all up at the same time. Some twelve minutes after building.",
        epilog="FRP_GATEWAY_BIN: the gateway to measure instead of building it. Exit code: 0 measured (whether or not targets are "
               "met), 1 something was invalid.")
    parser.add_argument("--quick", action="store_true", help="two rounds of a second, unpinned, at 1 and 32 connections: shows that it works")
    parser.add_argument("--mode", action="append", choices=MODES, help="default: all")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--seconds", type=int, help="per round; default 2")
    parser.add_argument("--patience", type=float, default=200, metavar="SECONDS", help="to wait, all in all, while others use the machine; default 200")
    parser.add_argument("--tools", metavar="FOLDER", help="has the programs of benches/src/bin already: don't build them")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md and results/takeover.json")
    args = parser.parse_args()
    if args.write and (args.quick or args.mode):
        parser.error("--write takes a whole run")
    if os.cpu_count() < 2:
        parser.error("needs two cores")
    return args


class Lab:
    """Where programs are, and what a run has of its own. What benches/directory and benches/takeover share."""

    def __init__(self, args):
        self.root = os.path.dirname(BENCHES)
        self.args = args
        load.PATIENCE["left"] = args.patience

    def install(self, *packages):
        """Everything there before anything is measured."""
        install.debian(packages)
        self.target = install.target_dir(self.root)
        self.tools_dir = os.path.abspath(self.args.tools) if self.args.tools else os.path.join(self.target, "release")
        self.gateway = os.path.abspath(os.environ.get("FRP_GATEWAY_BIN") or os.path.join(self.target, "release", "frp-gateway"))
        install.run([os.path.join(self.root, "frp-lab", "build"), "0.71"])
        if not self.args.tools:
            install.cargo(self.root, "frp-gateway-benches", "--bin", "backend", "--bin", "fixed_rate")
            install.cargo(self.root, "frp-gateway-loadtest", "--bin", "demo-app")
        if not os.environ.get("FRP_GATEWAY_BIN"):
            install.cargo(self.root, "frp-gateway")

    def tool(self, name):
        """One of our own programs."""
        return os.path.join(self.tools_dir, name)

    def frp(self, name):
        """frps or frpc."""
        return os.path.join(self.root, "frp-lab", "bin", "0.71", name)


class Bench(Lab):
    """One run."""

    def __init__(self, args):
        super().__init__(args)
        self.rounds = args.rounds or (2 if args.quick else 5)
        self.seconds = args.seconds or (1 if args.quick else 2)
        self.connections = [1, 32] if args.quick else CONNECTIONS
        self.modes = args.mode or (["unpinned"] if args.quick else MODES)

    def install(self):
        super().install("haproxy", "wrk")

    def pids(self):
        """Of everything that belongs to the run."""
        return self.ways.pids()

    def run(self):
        """Mode after mode, each with programs of its own."""
        words = ["benches/takeover", *(f"--mode {mode}" for mode in self.args.mode or []), f"--rounds {self.rounds} --seconds {self.seconds}"]
        record = report.head(self, " ".join(words)) | {"rounds": self.rounds, "seconds": self.seconds, "modes": {}, "bursts": {}}
        for mode in self.modes:
            self.run_dir = tempfile.mkdtemp(prefix="frp-gateway-takeover-")
            try:
                self.mode(mode, record)
            except (Invalid, OSError, ValueError) as error:
                progress(f"    INVALID: {error}")
                record["invalid"][mode] = str(error)
            finally:
                process.stop_all()
                shutil.rmtree(self.run_dir, ignore_errors=True)
        return record

    def mode(self, mode, record):
        """All loads in one mode."""
        everywhere = set(range(os.cpu_count()))
        cores, load_cores = (process.PROXY_CORES, process.LOAD_CORES) if mode == "pinned" else (everywhere, everywhere)
        self.demo = mode == "demo-app"
        self.path, self.counts_connections = "/bytes/3" if self.demo else "/0", not self.demo
        os.sched_setaffinity(0, load_cores)
        progress(f"{mode}: starting")
        self.ways = Ways(self, cores, load_cores)
        if self.counts_connections:
            record["bursts"][mode] = self.bursts(load_cores)
        loads = record["modes"].setdefault(mode, {})
        for connections in (one for one in self.connections if not self.demo or one in DEMO_CONNECTIONS):
            progress(f"{mode}: {connections} connections")
            for way in self.ways.all:
                load.wrk(self, way, connections, 1, load_cores)
            def once(way, connections=connections):
                return load.quietly(self, lambda: load.wrk(self, way, connections, self.seconds, load_cores))

            loads[str(connections)] = self.interleaved(once)
        self.ways.stop()

    def bursts(self, cores):
        """New tunnel connections: first with what a light load left warm, then warm, then without pauses."""
        kinds = {}
        ways = self.ways.all[:4]  # a raw tunnel opens one for each of its visitors, by nature
        progress("bursts of 50")
        for way in ways:
            load.wrk(self, way, 4, 1, cores)
        pause = 0.05
        kinds["cold"] = self.interleaved(lambda way: load.bursts(self, way, BURST, 20, pause), ways, 1)
        kinds["warm"] = self.interleaved(lambda way: load.quietly(self, lambda: load.bursts(self, way, BURST, 40, pause)), ways, min(3, self.rounds))
        kinds["steady"] = self.interleaved(lambda way: load.quietly(self, lambda: load.wrk(self, way, BURST, self.seconds, cores)), ways, min(3, self.rounds))
        return kinds

    def interleaved(self, once, ways=None, rounds=None):
        """`once(way)` for every way, round after round, in reversed order every other time: {name: [values]}."""
        ways, results = ways or self.ways.all, {}
        for number in range(rounds or self.rounds):
            for way in ways if number % 2 == 0 else ways[::-1]:
                seen = once(way)
                results.setdefault(way.name, []).append(seen)
                shown = ", ".join(f"{key} {value:.1f}" for key, value in seen.items() if isinstance(value, (int, float)))
                progress(f"    {number + 1} {way.name}: {shown}")
        return {way.name: results[way.name] for way in ways}


def progress(text):
    """For the one who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("takeover: interrupted") from None
