"""benches/directory: one run from top to bottom."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time

from balance_times.report import replace
from harness import process
from harness.process import Invalid
from takeover_bench.__main__ import BENCHES, Lab

from . import changes, costs, flaps, report
from .lab import EVERYWHERE, Fleet

PARTS = ["polls", "memory", "changes", "flaps"]


def main():
    args = arguments()
    bench = Bench(args)
    bench.install("wrk")
    process.prepare()
    os.sched_setaffinity(0, EVERYWHERE)
    record = bench.run()
    section = report.markdown(record)
    print(section)
    write = args.write and not record["invalid"]
    path = os.path.join(BENCHES, "results", "directory.json") if write else os.path.join(bench.target, "directory.json")
    with open(path, "w") as file:
        json.dump(record, file, indent=1, ensure_ascii=False)
        file.write("\n")
    if write:
        replace(os.path.join(BENCHES, "RESULTS.md"), report.NAME, section)
    if record["invalid"]:
        raise SystemExit(f"directory: invalid: {record['invalid']}")


def arguments():
    parser = argparse.ArgumentParser(
        prog="benches/directory",
        description="5,000 tunnels of real frpc on five frps: cost of polls, memory, time from a change to its being served, and what "
                    "200 flaps a second cost requests. Some ten minutes after building, 700 MiB.",
        epilog="FRP_GATEWAY_BIN: the gateway to measure instead of building it.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter: shows that it works")
    parser.add_argument("--only", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--patience", type=float, default=200, metavar="SECONDS", help="to wait, all in all, while others use the machine; default 200")
    parser.add_argument("--tools", metavar="FOLDER", help="has the programs of benches/src/bin already: don't build them")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md and results/directory.json")
    args = parser.parse_args()
    if args.write and (args.quick or args.only):
        parser.error("--write takes a whole run")
    return args


class Bench(Lab):
    """One run."""

    path, counts_connections = "/0", True

    def pids(self):
        """Of everything that belongs to the run."""
        return self.fleet.pids()

    def run(self):
        """Part after part on one fleet."""
        quick, only = self.args.quick, self.args.only or PARTS
        record = report.head(self, " ".join(["benches/directory", *(["--quick"] if quick else []), *(f"--only {part}" for part in self.args.only or [])]))
        self.run_dir = tempfile.mkdtemp(prefix="frp-gateway-directory-")
        try:
            progress("5 frps, 5,000 tunnels")
            fleet = Fleet(self)
            record["register_s"] = fleet.register()
            progress(f"    served after {record['register_s']:.1f} s")
            parts = {
                "polls": lambda: {"polls": costs.polls(fleet, 4 if quick else 12, 1 if quick else 3), "listing_ms": costs.listing_ms(fleet.servers[1], 20)},
                "memory": lambda: {"memory": costs.memory(fleet, 1 if quick else 3)},
                "changes": lambda: {"changes": changes.changes(fleet, 10 if quick else 50)},
                "flaps": lambda: {"flaps": [flaps.flaps(fleet, 2 if quick else 4, 2 if quick else 3, progress) for _ in range(1 if quick else 2)]},
            }
            for part in only:
                progress(part)
                values = parts[part]()
                progress(f"    {values}")
                record |= values
        except (Invalid, OSError, ValueError) as error:
            progress(f"    INVALID: {error}")
            record["invalid"]["run"] = str(error)
        finally:
            process.stop_all()
            shutil.rmtree(self.run_dir, ignore_errors=True)
        return record


def progress(text):
    """For the one who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("directory: interrupted") from None
