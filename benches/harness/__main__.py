"""benches/compare: one run from top to bottom."""

import argparse
import json
import os
import shutil
import sys
import tempfile

from . import install, process, report
from .contestants import PEERS, Contestant
from .measure import Backend
from .process import Invalid
from .scenarios import OPTIONAL, OURS, SCENARIOS

BENCHES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    args = arguments()
    if os.cpu_count() < 2:
        raise SystemExit("compare: needs two cores: one for the proxy, one for load and backend")
    bench = Bench(args)
    bench.install(args)
    process.prepare()
    record = bench.run([scenario for scenario in SCENARIOS if args.wants(scenario.name)])
    section = report.markdown(record)
    print(section)
    bench.save(record, section, write=args.write or args.is_full)
    if record["invalid"]:
        raise SystemExit(f"compare: invalid: {', '.join(record['invalid'])}")


def arguments():
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(
        prog="benches/compare", description="Measures the gateway beside its peers in one run, on loopback, ten minutes or so.",
        epilog="A full, valid run replaces the section in RESULTS.md and results/latest.json; others only print. "
               "Exit code: 0 measured (whether or not targets are met), 1 something was invalid. FRP_GATEWAY_BIN: the gateway "
               "to measure instead of building it.")
    parser.add_argument("--quick", action="store_true", help="two rounds of one second: to see that it works, not to compare")
    parser.add_argument("--only", metavar="SCENARIO[,…]", help="of " + ", ".join(names))
    parser.add_argument("--peers", metavar="NAME[,…]", default=",".join(PEERS), help="of " + ", ".join(PEERS) + "; default: all")
    parser.add_argument("--rounds", type=int, help="per contestant; default 5")
    parser.add_argument("--seconds", type=int, help="per round; default 2")
    parser.add_argument("--strace", action="store_true", help="count system calls too")
    parser.add_argument("--gateway", metavar="NAME=BINARY", action="append", default=[], help="one more build of the gateway, to compare two")
    parser.add_argument("--no-gateway", action="store_true", help="only the peers: to test this harness")
    parser.add_argument("--tools", metavar="FOLDER", help="has the programs of benches/src/bin already: don't build them")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md and latest.json from a partial run too")
    args = parser.parse_args()
    args.peers = [name for name in args.peers.split(",") if name]
    only = args.only.split(",") if args.only else []
    for name, known in [*((name, PEERS) for name in args.peers), *((name, names) for name in only)]:
        if name not in known:
            parser.error(f"{name!r} is none of {', '.join(known)}")
    args.wants = lambda name: name in only if only else name not in OPTIONAL or args.strace
    args.is_full = not (args.quick or only or args.no_gateway or args.gateway or args.rounds or args.seconds or set(args.peers) != set(PEERS))
    return args


class Bench:
    """One run's settings, folders and running contestants."""

    def __init__(self, args):
        self.quick = args.quick
        self.rounds = args.rounds or (2 if args.quick else 5)
        self.seconds = args.seconds or (1 if args.quick else 2)
        self.kinds = [*([] if args.no_gateway else [OURS]), *args.peers]
        self.extra = [pair.split("=", 1) for pair in args.gateway]
        self.root = os.path.dirname(BENCHES)
        self.peers_dir = os.path.join(BENCHES, "peers")
        self.contestants, self.notes = [], {}

    def install(self, args):
        """Everything there before anything is measured."""
        tracing = args.wants("syscalls")
        install.debian([*(name for name in ("haproxy", "nginx") if name in self.kinds), "wrk", "h2load", "openssl", *(["strace"] if tracing else [])])
        target = os.path.dirname(os.path.abspath(args.tools)) if args.tools else install.target_dir(self.root)
        self.tools_dir = os.path.abspath(args.tools) if args.tools else os.path.join(target, "release")
        self.bin_dir = os.path.join(target, "compare", "bin")
        self.gateway = os.environ.get("FRP_GATEWAY_BIN") or os.path.join(target, "release", "frp-gateway")
        os.makedirs(self.bin_dir, exist_ok=True)
        if not args.tools:
            install.cargo(self.root, "frp-gateway-benches", *(["--features", "pingora"] if "pingora" in self.kinds else []))
        if OURS in self.kinds and not os.environ.get("FRP_GATEWAY_BIN"):
            install.cargo(self.root, "frp-gateway")
        if "caddy" in self.kinds:
            install.caddy(os.path.join(BENCHES, "caddy"), os.path.join(self.bin_dir, "caddy"))

    def tool(self, name):
        """One of our own programs."""
        return os.path.join(self.tools_dir, name)

    def run(self, scenarios):
        """Starts everyone, idle; then one scenario after the other. An invalid one doesn't stop the others."""
        record = {
            "date": report.date(), "command": " ".join(["benches/compare", *sys.argv[1:]]), "machine": report.machine(),
            "commit": report.commit(self.root), "versions": report.versions(self), "rounds": self.rounds,
            "seconds": self.seconds, "invalid": {}, "scenarios": {}, "notes": self.notes,
        }
        self.run_dir = tempfile.mkdtemp(prefix="frp-gateway-compare-")
        try:
            self.certificate = install.certificate(self.run_dir)
            self.start_all()
            for scenario in scenarios:
                self.progress(f"{scenario.name}: {scenario.about}")
                try:
                    values = scenario.run(self, scenario)
                except Invalid as error:
                    self.progress(f"    INVALID: {error}")
                    record["invalid"][scenario.name] = str(error)
                    continue
                metrics = {metric.key: report.judge(metric, values[metric.key]) | {"digits": metric.digits}
                           for metric in scenario.metrics if values.get(metric.key)}
                record["scenarios"][scenario.name] = {"about": scenario.about, "metrics": metrics}
        except Invalid as error:
            record["invalid"]["start"] = str(error)
        finally:
            process.stop_all()
            shutil.rmtree(self.run_dir, ignore_errors=True)
        return record

    def start_all(self):
        """The backend and every contestant, each proved to do the job."""
        self.backend = Backend(self.tool("backend"), os.path.join(self.run_dir, "backend.log"))
        self.contestants = [Contestant(self, kind) for kind in self.kinds]
        self.contestants += [Contestant(self, OURS, name, binary=os.path.abspath(binary)) for name, binary in self.extra]
        for contestant in self.contestants:
            contestant.start().prove()
            self.progress(f"{contestant.name} serves")

    def save(self, record, section, write):
        """The raw numbers always; RESULTS.md and latest.json only from a run that deserves it."""
        if write and not record["invalid"]:
            os.makedirs(os.path.join(BENCHES, "results"), exist_ok=True)
            report.write_section(os.path.join(BENCHES, "RESULTS.md"), section)
            path = os.path.join(BENCHES, "results", "latest.json")
        else:
            path = os.path.join(os.path.dirname(self.bin_dir), "last-run.json")
        with open(path, "w") as file:
            json.dump(record, file, indent=1, ensure_ascii=False)
            file.write("\n")
        self.progress(f"raw numbers: {os.path.relpath(path, self.root)}")

    @staticmethod
    def progress(text):
        """For the one who waits."""
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("compare: interrupted") from None
