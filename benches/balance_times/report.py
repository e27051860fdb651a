"""Tables, and where they go."""

import re

from harness import report as common
from harness.install import output

NAME = "benches/balance-times"


def head(bench, args):
    """What the numbers depend on. Where tools lie isn't part of it."""
    def first(command, pattern):
        found = re.search(pattern, output(command))
        return found[1] if found else "unknown"

    words = [NAME, *(f"--only '{name}'" for name in args.only or []), f"--rounds {args.rounds}", f"--rate {args.rate}"]
    versions = {"frp-gateway": first([bench.gateway, "--version"], r"(\d\S*)"), "haproxy": first(["haproxy", "-v"], r"version (\S+)"),
                "nginx": first(["nginx", "-v"], r"nginx/(\S+)"), "frp": "0.71.0"}
    return {"date": common.date(), "command": " ".join(words), "machine": common.machine(), "commit": common.commit(bench.root),
            "versions": versions, "rounds": args.rounds, "rate": args.rate, "invalid": {}, "scenarios": {}}


def together(scenario, rounds):
    """All rounds of a scenario: per contestant and column the values in the order of the rounds."""
    rows = {}
    for name, row in rounds[0]["rows"].items():
        rows[name] = {"keys": row["keys"], "requests": [one["rows"][name]["requests"] for one in rounds]}
        rows[name] |= {column.key: [one["rows"][name][column.key] for one in rounds] for column in scenario.columns}
    return {"about": scenario.about, "seconds": scenario.seconds, "late_ms": [one["late_ms"] for one in rounds],
            "events": [one["events"] for one in rounds], "rows": rows,
            "columns": [[column.key, column.title, column.digits] for column in scenario.columns]}


def markdown(record):
    """The dated section."""
    host = record["machine"]
    lines = [
        f"`{record['command']}`, {record['date']}, on {host['cpu']}, {host['cores']} cores, kernel {host['kernel']}; commit {record['commit']}.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".",
        f"Five real frps, each with one frpc and an application of 50 ± 5 ms; {record['rate']} requests/s for each contestant, "
        "Poisson arrivals, all contestants before the same fleet at the same time. A failed request is one without a 200. "
        f"Median [min–max] of {record['rounds']} rounds; a dash: not within the run.", "",
    ]
    lines += [f"**Invalid:** {name}: {why}" for name, why in record["invalid"].items()]
    for name, scenario in record["scenarios"].items():
        lines += [f"### {name.capitalize()}: {scenario['about']}", "", *table(scenario), ""]
    return "\n".join(lines).rstrip() + "\n"


def table(scenario, rows=None):
    """Of one scenario; `rows` chooses contestants."""
    columns = scenario["columns"]
    lines = ["| | " + " | ".join(title for _, title, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in scenario["rows"].items():
        if rows is None or name in rows:
            cells = [cell(row[key], digits) for key, _, digits in columns]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def cell(values, digits):
    """Median and spread; what never happened within a run counts as later than anything."""
    ordered = sorted(values, key=lambda value: float("inf") if value is None else value)
    shown = ["–" if value is None else f"{value:,.{digits}f}" for value in ordered]
    middle = shown[(len(shown) - 1) // 2]
    return middle if shown[0] == shown[-1] else f"{middle} [{shown[0]}–{shown[-1]}]"


def replace(path, name, section):
    """Puts `section` between the marks of `name`."""
    begin, end = f"<!-- {name}: from here -->", f"<!-- {name}: to here -->"
    with open(path) as file:
        text = file.read()
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{path} has lost its marks {begin} … {end}")
    with open(path, "w") as file:
        file.write(f"{before}{begin}\n\n{section}\n{end}{after}")
