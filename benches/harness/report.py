"""Turns results into the tables of RESULTS.md and into JSON."""

import os
import re
import subprocess
import time

from .install import output
from .scenarios import median

BEGIN, END = "<!-- benches/compare: from here -->", "<!-- benches/compare: to here -->"


def machine():
    """What the numbers depend on."""
    with open("/proc/cpuinfo") as file:
        model = re.search(r"^model name\s*:\s*(.*)$", file.read(), re.MULTILINE)
    with open("/proc/meminfo") as file:
        memory = int(file.read().split()[1]) / (1 << 20)
    return {"cpu": model[1] if model else os.uname().machine, "cores": os.cpu_count(), "memory_gib": round(memory),
            "kernel": os.uname().release}


def commit(root):
    """The commit measured, marked when the tree differs from it."""
    name = output(["git", "rev-parse", "--short=12", "HEAD"], root)
    changed = output(["git", "--no-optional-locks", "status", "--porcelain"], root)
    return (name or "none yet") + (" with local changes" if changed else "")


def versions(bench):
    """Of each contestant and of wrk."""
    def first(command, pattern):
        found = re.search(pattern, output(command))
        return found[1] if found else "unknown"

    def pingora():
        try:
            with open(os.path.join(bench.root, "Cargo.lock")) as file:
                return re.search(r'name = "pingora-proxy"\nversion = "([^"]+)"', file.read())[1]
        except (OSError, TypeError):
            return "unknown"

    everyone = {
        "haproxy": lambda: first(["haproxy", "-v"], r"version (\S+)"),
        "nginx": lambda: first(["nginx", "-v"], r"nginx/(\S+)"),
        "caddy": lambda: first(["go", "version", "-m", os.path.join(bench.bin_dir, "caddy")], r"caddy/v2\s+v(\S+)"),
        "pingora": pingora,
        "frp-gateway": lambda: first([bench.gateway, "--version"], r"(\d\S*)"),
    }
    wrk = subprocess.run(["wrk", "-v"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    return {kind: everyone[kind]() for kind in bench.kinds} | {"wrk": (re.search(r"wrk (?:debian/)?(\S+)", wrk) or " ?")[1]}


def judge(metric, values):
    """Medians, spreads, ratio and verdict of one metric: {rows, baseline, must, target}."""
    rows = {name: {"median": median(rounds), "min": min(rounds), "max": max(rounds), "rounds": rounds}
            for name, rounds in values.items()}
    best = max if metric.higher_is_better else min
    baseline = best((name for name in metric.against if name in rows), key=lambda name: rows[name]["median"], default=None)
    if baseline:
        for row in rows.values():
            row["ratio"] = row["median"] / rows[baseline]["median"] if rows[baseline]["median"] else None
    verdicts = {}
    if metric.ours in rows:
        value = rows[metric.ours]["median"] if metric.absolute else rows[metric.ours].get("ratio")
        for kind in ("must", "target"):
            limit = getattr(metric, kind)
            if limit is not None and value is not None:
                verdicts[kind] = {"limit": limit, "value": value, "pass": value <= limit}
    return {"title": metric.title, "unit": metric.unit, "absolute": metric.absolute, "baseline": baseline, "rows": rows, **verdicts}


def markdown(record):
    """The dated section."""
    host = record["machine"]
    lines = [
        f"## {record['date']}", "",
        f"`{record['command']}` on {host['cpu']}, {host['cores']} cores, {host['memory_gib']} GiB, kernel {host['kernel']}.",
        f"Commit {record['commit']}. {record['rounds']} rounds of {record['seconds']} s, order reversed every other round.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".", "",
    ]
    if record["invalid"]:
        lines += ["**Invalid measurements:**", *(f"- {name}: {why}" for name, why in record["invalid"].items()), ""]
    lines += _summary(record)
    for name, scenario in record["scenarios"].items():
        lines += [f"### {name}: {scenario['about']}", ""]
        lines += _table(scenario["metrics"])
    return "\n".join(lines).rstrip() + "\n"


def _summary(record):
    rows = []
    for name, scenario in record["scenarios"].items():
        for metric in scenario["metrics"].values():
            if "must" in metric or "target" in metric:
                value = (metric.get("must") or metric["target"])["value"]
                cells = [f"{metric[kind]['limit']:.2f} {'pass' if metric[kind]['pass'] else '**FAIL**'}" if kind in metric else "–"
                         for kind in ("must", "target")]
                against = metric["unit"] if metric["absolute"] else f"× {metric['baseline']}"
                rows.append(f"| {name}: {metric['title']} | {value:.2f} {against} | {' | '.join(cells)} |")
    return ["| ours | value | must ≤ | target ≤ |", "|---|---|---|---|", *rows, ""] if rows else []


def _table(metrics):
    names = list(dict.fromkeys(name for metric in metrics.values() for name in metric["rows"]))
    heads = [f"{metric['title']}, {metric['unit']}" for metric in metrics.values()]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in names:
        cells = [_cell(metric, metric["rows"].get(name)) for metric in metrics.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _cell(metric, row):
    if row is None:
        return "–"
    digits = metric["digits"]
    text = f"{row['median']:,.{digits}f}"
    if len(row["rounds"]) > 1:
        text += f" [{row['min']:,.{digits}f}–{row['max']:,.{digits}f}]"
    if row.get("ratio") is not None:
        text += f" ({row['ratio']:.2f})"
    return text


def write_section(path, section):
    """Replaces what is between the markers of RESULTS.md."""
    with open(path) as file:
        text = file.read()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"compare: {os.path.basename(path)} has lost its markers")
    with open(path, "w") as file:
        file.write(f"{before}{BEGIN}\n\n{section}\n{END}{after}")


def date():
    """Today, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
