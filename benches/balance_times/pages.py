"""benches/balance-pages: the tables of docs/policies/*.md, from the recorded numbers.

A page says itself what it wants, between two marks:

    <!-- measured: KIND | row | row … -->
    <!-- end of measured -->

KIND is `slow`, `failing`, `newcomer` or `zones` of results/balance.json, or a scenario of results/balance-times.json.
No rows: all of them. What a run doesn't have is an error: a page never shows numbers of another run beside these.
"""

import argparse
import glob
import json
import os
import re

from harness import report as common
from harness.install import output

from . import report

BENCHES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(BENCHES)
RESULTS = os.path.join(BENCHES, "results")
BLOCK = re.compile(r"(<!-- measured: ([^>]*?) -->\n).*?(<!-- end of measured -->)", re.DOTALL)
PHASES = {
    "slow": ["all well", "10 × slower: first 2 s", "10 × slower: after 2 s", "well again: 10 s on"],
    "failing": ["fails at once: first 2 s", "fails at once: after 2 s", "tunnel gone: first 2 s", "tunnel gone: after 2 s", "tunnel back: last 4 s"],
}


def main():
    parser = argparse.ArgumentParser(prog="benches/balance-pages", description="Fills the tables of docs/policies/*.md from benches/results/.")
    parser.add_argument("--take", metavar="FILE", help="first make this the new results/balance.json, with date, commit and machine")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a page differs from the results")
    args = parser.parse_args()
    if args.take:
        take(args.take)
    known = {name: load(name) for name in ("balance", "balance-times")}
    stale = [path for path in sorted(glob.glob(os.path.join(ROOT, "docs", "policies", "*.md"))) if fill(path, known, not args.check)]
    if args.check and stale:
        raise SystemExit("balance-pages: not what the results say: " + ", ".join(os.path.relpath(path, ROOT) for path in stale))


def take(path):
    """Records what a run depended on beside its numbers."""
    with open(path) as file:
        record = json.load(file)
    first = lambda command, pattern: (re.search(pattern, output(command)) or [None, "none"])[1]
    head = {"date": common.date(), "command": "benches/balance --write", "machine": common.machine(), "commit": common.commit(ROOT),
            "versions": {"haproxy": first(["haproxy", "-v"], r"version (\S+)"), "nginx": first(["nginx", "-v"], r"nginx/(\S+)"), "frp": "0.71.0"}}
    with open(os.path.join(RESULTS, "balance.json"), "w") as file:
        json.dump(head | record, file, indent=1, ensure_ascii=False)
        file.write("\n")


def load(name):
    """A record, or None before its first run."""
    try:
        with open(os.path.join(RESULTS, f"{name}.json")) as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def fill(path, known, write):
    """Whether the page had to change."""
    def block(found):
        kind, *rows = [word.strip() for word in found[2].split("|")]
        try:
            return found[1] + "\n".join(lines(kind, rows, known)) + "\n" + found[3]
        except KeyError as missing:
            raise SystemExit(f"balance-pages: {os.path.basename(path)}: the results have no {missing}") from None

    with open(path) as file:
        old = file.read()
    new = BLOCK.sub(block, old)
    if new != old and write:
        with open(path, "w") as file:
            file.write(new)
    return new != old


def lines(kind, rows, known):
    """The table asked for, or a line that there was no run yet."""
    ours = kind in PHASES or kind in ("newcomer", "zones")
    record = known["balance" if ours else "balance-times"]
    if record is None:
        return ["*Not measured yet.*"]
    where = f"*`benches/balance{'' if ours else '-times'}`, {record['date']}, commit {record['commit']}.*"
    if kind in PHASES:
        table = phases(record, kind, rows)
    elif kind == "newcomer":
        table = newcomers(record, rows)
    elif kind == "zones":
        table = ["| | stays in the own zone | without a 200 |", "|---|---|---|"]
        table += [f"| {row['phase']} | {row['local_percent']:.0f} % | {row['failed']} of {row['requests']} |" for row in record["zones"]]
    else:
        for name in rows:
            record["scenarios"][kind]["rows"][name]  # a row that isn't there is an error, not a shorter table
        table = report.table(record["scenarios"][kind], rows or None)
    return [*table, "", where]


def phases(record, kind, rows):
    """Share of the victim and p99, or failures, by phase."""
    names = PHASES[kind]
    table = ["| share / " + ("p99" if kind == "slow" else "failed") + " | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in rows or record["phases"][names[0]]:
        cells = []
        for name in names:
            seen = record["phases"][name][row]
            more = f"{seen['p99_ms']:.0f} ms" if kind == "slow" else f"{seen['failed_percent']:.1f} %"
            cells.append(f"{seen['victim_percent']:.1f} % / {more}")
        table.append(f"| {row} | " + " | ".join(cells) + " |")
    return table


def newcomers(record, rows):
    """Its share, second by second."""
    table = ["| share of the newcomer | 1st second | 2nd | 3rd–5th | 6th–10th | 11th–14th | p99, first 2 s |", "|---" * 7 + "|"]
    for row in rows or record["newcomer"]:
        seen = record["newcomer"][row]
        table.append(f"| {row} | " + " | ".join(f"{share:.1f} %" for share in seen["shares"]) + f" | {seen['p99_ms']:.0f} ms |")
    return table


if __name__ == "__main__":
    main()
