"""Tables of benches/directory."""

import statistics

from takeover_bench.report import head as common_head

from .flaps import LOADS

NAME = "benches/directory"
MOST_EXTRA = 12.0  # percent of CPU per request that 200 flaps a second may cost the request path


def head(bench, command):
    """What the numbers depend on."""
    record = common_head(bench, command)
    record["versions"].pop("haproxy")
    return record


def markdown(record):
    """The section, without its marks."""
    host = record["machine"]
    lines = [
        f"`{record['command']}`, {record['date']}, on {host['cpu']}, {host['cores']} cores, kernel {host['kernel']}; commit {record['commit']}.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".", "",
    ]
    lines += [f"**Invalid:** {name}: {why}" for name, why in record["invalid"].items()]
    if "register_s" in record:
        lines += ["| 5,000 http tunnels, taken over, 1,000 each on 5 frps | median [min–max] |", "|---|---|",
                  f"| all registered and served, from the start of the frpc | {record['register_s']:.1f} s |"]
    if "polls" in record:
        lines += [
            f"| polls of all five at the default interval of 2 s: CPU of the gateway | {_of(record['polls'], 'gateway_percent', 2)} % of a core |",
            f"| … of the five frps | {_of(record['polls'], 'frps_percent', 2)} % of a core |",
            f"| one poll of one frps: CPU of the gateway, of the frps | {_of(record['polls'], 'gateway_ms_per_poll', 1)} ms, {_of(record['polls'], 'frps_ms_per_poll', 1)} ms |",
            f"| one listing of 1,000 in pages of 200, as a client sees it | {record['listing_ms']:.1f} ms |"]
    if "memory" in record:
        rows = record["memory"]
        lines += [
            f"| memory (PSS) of a gateway 10 s old that knows them; of one with the same file that doesn't | {_of(rows, 'with_mib', 1)} MiB; {_of(rows, 'without_mib', 1)} MiB |",
            f"| … per tunnel | {_of(rows, 'kib_per_tunnel', 2)} KiB |",
            f"| start of a gateway to ready; to the first, to all tunnels served | {_of(rows, 'ready_s', 2)} s; {_of(rows, 'first_s', 2)} s, {_of(rows, 'all_s', 2)} s |"]
    lines.append("")
    if "changes" in record:
        titles = {"push": "gateway that frps calls", "poll": "gateway that only polls, every 2 s", "frps": "frps alone, its vhost, no plugin"}
        lines += ["From an frpc's reload with one new tunnel to the first 200, ms:", "", "| | median | p90 | worst | of |", "|---|---|---|---|---|"]
        for key, title in titles.items():
            took = sorted(float("inf") if one is None else one for one in record["changes"][key])
            cells = [f"{value:,.1f}" for value in (statistics.median(took), took[int(0.9 * len(took))], took[-1])]
            lines.append(f"| {title} | {' | '.join(cells)} | {len(took)} |")
        lines.append("")
    for number, run in enumerate(record.get("flaps", [])):
        lines += _flaps(number, run)
    return "\n".join(lines).rstrip() + "\n"


def _of(rows, key, digits):
    values = [row[key] for row in rows]
    text, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return text if low == high else f"{text} [{low}–{high}]"


def _flaps(number, run):
    lines = [
        f"Run {number + 1}: {run['rate']:.0f} flaps a second (a tunnel is closed and registered anew by its frpc), all of them served "
        f"again {run['restored_s']:.2f} s after the last one at the latest. The unconcerned gateway doesn't know the frps that flap: what changes for it is "
        "what frps and frpc, busy on the same two cores, do to everybody.", "",
        "| load | gateway | | CPU per request, workers, µs | … whole process, µs | other threads, % of a core | requests/s | p50, ms | p99, ms | others, % |",
        "|---" * 10 + "|"]
    for kind, whos in run["rows"].items():
        for who, states in whos.items():
            for state, rounds in states.items():
                cells = [_of(rounds, key, digits) for key, digits in (("workers_us", 2), ("whole_us", 2), ("control_percent", 1), ("rps", 0),
                                                                     ("p50", 2), ("p99", 2), ("others", 0))]
                lines.append(f"| {kind} | {who} | {'flaps' if state == 'on' else 'quiet'} | {' | '.join(cells)} |")
    lines += ["", "| what flaps add, % | workers' CPU per request | whole process | p99 |", "|---|---|---|---|"]
    for kind, whos in run["extra"].items():
        for who, values in whos.items():
            wanted = f" (wanted < {MOST_EXTRA:.0f}: {'met' if values['workers_us'] < MOST_EXTRA else '**missed**'})" if who == "concerned" else ""
            lines.append(f"| {LOADS[kind]}: {who} | {values['workers_us']:+.1f}{wanted} | {values['whole_us']:+.1f} | {values['p99']:+.0f} |")
    return [*lines, ""]
