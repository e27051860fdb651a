"""Tables and verdicts of benches/takeover."""

import re
import statistics

from harness import report as common
from harness.install import output

from .contestants import PLAIN, TAKEN
from .load import MOST_OTHERS

NAME = "benches/takeover"
LEAST_RPS = {1: 0.85, 32: 5.0}  # takeover ÷ plain vhost, by connections


def head(bench, command):
    """What the numbers depend on."""
    def first(words, pattern):
        found = re.search(pattern, output(words))
        return found[1] if found else "unknown"

    return {
        "date": common.date(), "command": command, "machine": common.machine(), "commit": common.commit(bench.root),
        "versions": {"frp-gateway": first([bench.gateway, "--version"], r"(\d\S*)"), "frp": "0.71.0",
                     "haproxy": first(["haproxy", "-v"], r"version (\S+)"), "wrk": "4.1.0"},
        "invalid": {},
    }


def middle(values):
    """Their median; None without any."""
    return statistics.median(values) if values else None


def verdicts(record):
    """What the issue asks for: [(what, value, limit, met)]."""
    rows = []
    for mode, loads in record["modes"].items():
        def ratio_of(connections, key, loads=loads):
            ways = loads[str(connections)]
            return middle([one[key] for one in ways[TAKEN]]) / middle([one[key] for one in ways[PLAIN]])

        for connections in map(int, loads if mode != "pinned" else []):
            if connections in LEAST_RPS:
                ratio, limit = ratio_of(connections, "rps"), LEAST_RPS[connections]
                rows.append((f"requests/s at {connections}, {mode}: takeover ÷ plain vhost", ratio, f"≥ {limit}", ratio >= limit))
            if connections >= 8:
                ratio = ratio_of(connections, "p99")
                rows.append((f"p99 at {connections}, {mode}: takeover ÷ plain vhost", ratio, "< 1", ratio < 1))
        for kind, name in (("warm", "after a warm-up by the same bursts"), ("steady", "50 visitors without a pause")):
            rounds = record["bursts"].get(mode, {}).get(kind, {}).get(TAKEN)
            if rounds:
                value = middle([one["connects"] for one in rounds])
                rows.append((f"new tunnel connections per 1,000 requests, {mode}, {name}", value, "< 20", value < 20))
    return rows


def markdown(record):
    """The section, without its marks."""
    host = record["machine"]
    lines = [
        f"`{record['command']}`, {record['date']}, on {host['cpu']}, {host['cores']} cores, kernel {host['kernel']}; commit {record['commit']}.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".",
        f"{record['rounds']} rounds of {record['seconds']} s, order reversed every other round; medians [min–max], in brackets the ratio to "
        "plain vhost. CPU in µs per request. Others: what ran on the machine and wasn't part of the run; a round with more than "
        f"{MOST_OTHERS:.0f} % was repeated, at most twice, once the machine was quiet.", "",
    ]
    lines += [f"**Invalid:** {name}: {why}" for name, why in record["invalid"].items()]
    rows = verdicts(record)
    if rows:
        lines += ["| | value | wanted | |", "|---|---|---|---|"]
        lines += [f"| {what} | {value:.2f} | {limit} | {'met' if met else '**missed**'} |" for what, value, limit, met in rows] + [""]
    for mode, loads in record["modes"].items():
        about = {"unpinned": "everything free on both cores",
                 "pinned": "frps, frpc and what stands before them on one core, load and application on the other",
                 "demo-app": "as unpinned, with an ordinary web server (loadtest's demo application, 3-byte answers) as the application"}[mode]
        lines += [f"### {mode.capitalize()}: {about}", "",
                  "| connections | way | requests/s | p50, ms | p99, ms | CPU: proxy | frps | frpc | all | new tunnel connections per 1,000 | failed | others, % |",
                  "|---" * 12 + "|"]
        for connections, ways in loads.items():
            base = {key: middle([one[key] for one in ways[PLAIN]]) for key in ("rps", "p99")} if PLAIN in ways else {}
            lines += [_row(connections, name, rounds, base) for name, rounds in ways.items()]
        lines.append("")
        lines += _bursts(record["bursts"].get(mode, {}))
    return "\n".join(lines).rstrip() + "\n"


def _row(connections, name, rounds, base):
    cpu = {role: middle([one["cpu"][role] for one in rounds]) if role in rounds[0]["cpu"] else None for role in ("proxy", "frps", "frpc")}
    cells = [
        _spread(rounds, "rps", 0, base.get("rps")), _spread(rounds, "p50", 2), _spread(rounds, "p99", 2, base.get("p99")),
        *("–" if value is None else f"{value:.0f}" if value >= 20 else f"{value:.1f}" for value in cpu.values()),
        f"{sum(value for value in cpu.values() if value):.0f}", _spread(rounds, "connects", 0),
        f"{sum(one['failed'] for one in rounds)}", _spread(rounds, "others", 0),
    ]
    return f"| {connections} | {name} | {' | '.join(cells)} |"


def _spread(rounds, key, digits, base=None):
    values = [one[key] for one in rounds]
    if None in values:
        return "–"
    text = f"{middle(values):,.{digits}f}"
    low, high = f"{min(values):,.{digits}f}", f"{max(values):,.{digits}f}"
    if low != high:
        text += f" [{low}–{high}]"
    return text + (f" ({middle(values) / base:.2f})" if base else "")


def _bursts(kinds):
    if not kinds:
        return []
    titles = {"cold": "warmed by 4 visitors only: the first 20 bursts", "warm": "the next 40", "steady": "50 visitors without a pause"}
    names = list(next(iter(kinds.values())))
    lines = ["New tunnel connections per 1,000 requests; bursts of 50 requests at once, 50 ms apart (in brackets p99 in ms):", "",
             "| | " + " | ".join(titles[kind] for kind in kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for name in names:
        cells = []
        for rounds in kinds.values():
            failed = sum(one["failed"] for one in rounds[name])
            cells.append(f"{_spread(rounds[name], 'connects', 0)} ({middle([one['p99'] for one in rounds[name]]):.1f})" + (f", {failed} failed" if failed else ""))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]
