"""What it costs to know 5,000 tunnels while nothing happens: polls, memory, a restart."""

import statistics
import time

from harness.measure import cpu_ns, pss_kb
from harness.process import wait_until
from takeover_bench.fleet import answers

from .lab import EACH, SERVERS, host

INTERVAL = 2.0  # s: default of frps[].admin.interval


def idle(fleet, seconds):
    """CPU of the gateways that run and of the five frps, over `seconds` without a visitor: percent of a core."""
    gateways = {one.name: one.pid for one in fleet.programs if hasattr(one, "metric") and one.child and one.child.poll() is None}
    servers = [one.pid for one in fleet.servers]
    before = {name: cpu_ns(pid) for name, pid in gateways.items()}, sum(map(cpu_ns, servers)), time.monotonic()
    time.sleep(seconds)
    wall = (time.monotonic() - before[2]) * 1e9
    return {name: 100 * (cpu_ns(pid) - before[0][name]) / wall for name, pid in gateways.items()} | {
        "frps": 100 * (sum(map(cpu_ns, servers)) - before[1]) / wall}


def polls(fleet, seconds, rounds):
    """One gateway that polls, and none: what the polls of all five frps cost. The frps' own plugin calls don't occur."""
    rows = []
    for _ in range(rounds):
        polling = idle(fleet, seconds)
        fleet.main.stop()
        nobody = idle(fleet, seconds)
        fleet.main.start(fleet.yaml())
        fleet.wait_served(fleet.main, 30)
        time.sleep(1)
        rows.append({"gateway_percent": polling["main"], "frps_percent": polling["frps"] - nobody["frps"],
                     "gateway_ms_per_poll": polling["main"] / 100 * INTERVAL * 1e3 / SERVERS,
                     "frps_ms_per_poll": (polling["frps"] - nobody["frps"]) / 100 * INTERVAL * 1e3 / SERVERS})
    return rows


def listing_ms(frps, times):
    """How long one listing takes, page after page as the gateway asks for it, without the gateway's own work: median."""
    took = []
    for _ in range(times):
        begin, page, total = time.monotonic(), 1, 1
        while (page - 1) * 200 < total:
            total = frps.ask(f"/api/v2/proxies?status=online&pageSize=200&page={page}")["data"]["total"]
            page += 1
        took.append(1e3 * (time.monotonic() - begin))
    return statistics.median(took)


def memory(fleet, rounds):
    """Of fresh gateways, ten seconds old: one that knows 5,000 tunnels, one with the same file that knows none; and the
    time from start to ready and to the first and the last tunnel served."""
    rows = []
    for _ in range(rounds):
        row = {}
        for key, admin in (("with", True), ("without", False)):
            gateway = fleet.gateway(f"fresh-{key}")
            begin = time.monotonic()
            gateway.start(fleet.yaml(admin=admin, plugin=admin))
            if admin:
                row["ready_s"] = time.monotonic() - begin
                wait_until(lambda: answers(gateway.port, "/0", host(0, 0)), 30, "the first tunnel")
                row["first_s"] = time.monotonic() - begin
                fleet.wait_served(gateway, 30)
                row["all_s"] = time.monotonic() - begin
            time.sleep(10)
            row[f"{key}_mib"] = pss_kb(gateway.pid) / 1024
            gateway.stop()
        row["kib_per_tunnel"] = (row["with_mib"] - row["without_mib"]) * 1024 / (SERVERS * EACH)
        rows.append(row)
    return rows
