"""benches/balance-times: one run from top to bottom."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

from harness import install, process
from harness.process import Invalid

from . import report, samples
from .contestants import Contestant
from .fleet import CORES, HOST, Member
from .scenarios import SCENARIOS

BENCHES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MEMBERS = 5
MOST_LATE_MS = 100  # of the generator, at any time: more, and the machine was too busy for what it reports


def main():
    args = arguments()
    bench = Bench(args)
    bench.install()
    process.prepare()
    os.sched_setaffinity(0, CORES)  # nothing is pinned here: delays of 50 ms don't feel it
    record = bench.run()
    section = report.markdown(record)
    print(section)
    path = os.path.join(BENCHES, "results", "balance-times.json") if args.write else os.path.join(bench.target, "balance-times.json")
    if args.write and record["invalid"]:
        raise SystemExit("balance-times: invalid, so nothing is written")
    with open(path, "w") as file:
        json.dump(record, file, indent=1, ensure_ascii=False)
        file.write("\n")
    if args.write:
        report.replace(os.path.join(BENCHES, "RESULTS.md"), report.NAME, section)
    if record["invalid"]:
        raise SystemExit(f"balance-times: invalid: {record['invalid']}")


def arguments():
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(
        prog="benches/balance-times",
        description="How long a member that dies or fails is still used, and how soon it is used again: real frps, the gateway "
                    "beside haproxy and nginx, all before the same fleet at the same time. Two minutes a round, after building.",
        epilog="FRP_GATEWAY_BIN: the gateway to measure instead of building it.")
    parser.add_argument("--only", metavar="SCENARIO", action="append", choices=names, help="one of " + ", ".join(names))
    parser.add_argument("--quick", action="store_true", help="only the two short scenarios, absence and slowness: half a minute")
    parser.add_argument("--rounds", type=int, default=3, help="of each scenario; default 3")
    parser.add_argument("--rate", type=int, default=100, help="requests per second for each contestant; default 100")
    parser.add_argument("--tools", metavar="FOLDER", help="has demo-app and open-loop already: don't build them")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md and results/balance-times.json")
    args = parser.parse_args()
    if args.quick:
        args.only, args.rounds = ["absence", "slowness"], 1
    if args.write and args.only:
        parser.error("--write takes a whole run")
    return args


class Clock:
    """Seconds since the load began."""

    def __init__(self):
        self.start = time.monotonic()

    def now(self):
        return time.monotonic() - self.start

    def until(self, second):
        time.sleep(max(0.0, second - self.now()))


class Bench:
    """One run's settings, folders and fleet."""

    def __init__(self, args):
        self.args = args
        self.root = os.path.dirname(BENCHES)
        self.kinds = ["frp-gateway", "haproxy", "nginx"]

    def install(self):
        """Everything there before anything is measured."""
        install.debian(["haproxy", "nginx"])
        self.target = install.target_dir(self.root)
        self.tools_dir = os.path.abspath(self.args.tools) if self.args.tools else os.path.join(self.target, "release")
        self.gateway = os.path.abspath(os.environ.get("FRP_GATEWAY_BIN") or os.path.join(self.target, "release", "frp-gateway"))
        install.run([os.path.join(self.root, "frp-lab", "build")])
        if not self.args.tools:
            install.cargo(self.root, "frp-gateway-loadtest", "--bin", "demo-app", "--bin", "open-loop")
        if not os.environ.get("FRP_GATEWAY_BIN"):
            install.cargo(self.root, "frp-gateway")

    def tool(self, name):
        """One of our own programs."""
        return os.path.join(self.tools_dir, name)

    def run(self):
        """One scenario after the other, each on the same fleet with fresh contestants."""
        record = report.head(self, self.args)
        self.run_dir = tempfile.mkdtemp(prefix="frp-gateway-balance-")
        try:
            progress("starting frps, frpc and applications")
            self.members = [Member(self, number) for number in range(MEMBERS)] + [Member(self, MEMBERS, tunnel=False)]
            for scenario in SCENARIOS:
                if self.args.only and scenario.name not in self.args.only:
                    continue
                progress(f"{scenario.name}: {scenario.about}")
                try:
                    rounds = [self.scenario(scenario) for _ in range(self.args.rounds)]
                    record["scenarios"][scenario.name] = report.together(scenario, rounds)
                except (Invalid, OSError) as error:
                    progress(f"    INVALID: {error}")
                    record["invalid"][scenario.name] = str(error)
        except (Invalid, OSError) as error:
            record["invalid"]["start"] = str(error)
        finally:
            process.stop_all()
            shutil.rmtree(self.run_dir, ignore_errors=True)
        return record

    def scenario(self, scenario):
        """Starts the contestants and the load, lets things happen, and judges what was seen."""
        members = [self.members[number] for number in scenario.members]
        contestants = [Contestant(self, name, recipe, members) for name, recipe in scenario.contestants.items()]
        out = os.path.join(self.run_dir, "samples.csv")
        try:
            command = [self.tool("open-loop"), "--rate", str(self.args.rate), "--seconds", str(scenario.seconds), "--out", out,
                       "--host", HOST, *(f"127.0.0.1:{one.port}" for one in contestants)]
            load = process.start(command, CORES, os.path.join(self.run_dir, "load.log"), stdout=subprocess.PIPE)
            if load.stdout.readline() != b"started\n":
                raise Invalid("the load generator doesn't start")
            events = scenario.play(members, Clock())
            try:
                load.wait(scenario.seconds + 20)
            except subprocess.TimeoutExpired:
                raise Invalid("the load generator doesn't end") from None
            if load.returncode:
                raise Invalid(f"the load generator ended with {load.returncode}")
        finally:
            for one in contestants:
                one.stop()
        seen, late = samples.read(out, contestants)
        if late > MOST_LATE_MS:
            raise Invalid(f"the load generator was {late:.0f} ms late once")
        rows = {}
        for one in contestants:
            rows[one.name] = {"keys": one.keys, "requests": len(seen[one.name])} | scenario.judge(seen[one.name], events)
            progress(f"    {one.name}: {({key: value for key, value in rows[one.name].items() if key != 'keys'})}")
        return {"late_ms": late, "events": {name: round(at, 3) for name, at in events.items()}, "rows": rows}


def progress(text):
    """For the one who waits."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("balance-times: interrupted") from None
