"""200 flaps a second by real frpc, and what requests to other tunnels notice of them."""

import glob
import json
import os
import statistics
import subprocess
import threading
import time

from harness import process
from harness.process import Invalid
from takeover_bench import load
from takeover_bench.contestants import Way
from takeover_bench.fleet import Frpc, answers, proxy

from .lab import EVERYWHERE

FLAPPERS = 50  # tunnels of each flapping frpc, one on every frps but the first
TURNS = 4  # reloads of each frpc per second
RATE, VISITORS = 5000, 16
LOADS = {"tunnels": f"{RATE:,}/s over {VISITORS} connections to 1,000 tunnels that don't flap",
         "direct": "64 connections, closed loop, straight to the application"}


class Flapping:
    """Every flapping tunnel is changed once a second: its frpc closes it and registers it anew, 0.2 ms later."""

    def __init__(self, fleet):
        self.fleet, self.stopping, self.thread = fleet, threading.Event(), None
        self.error, self.frpcs = None, []
        for number, frps in list(enumerate(fleet.servers))[1:]:
            frpc = fleet.add(Frpc(fleet.bench, f"flap{number}", EVERYWHERE, frps, f"flap{number}"))
            self.frpcs.append((frpc, [0] * FLAPPERS))
            frpc.start(self._proxies(frpc, [0] * FLAPPERS))
        self.wait_served(30)

    def _proxies(self, frpc, turns):
        return [proxy(f"web{n}", "http", self.fleet.local, customDomains=f'["w{n}.{frpc.user}.test"]', metadatas__gw_label_turn=f'"{turn}"')
                for n, turn in enumerate(turns)]

    def wait_served(self, seconds):
        """Until the gateway serves all of them; returns how long that took."""
        begin = time.monotonic()
        for frpc, _ in self.frpcs:
            for n in range(FLAPPERS):
                name = f"w{n}.{frpc.user}.test"
                while not answers(self.fleet.main.port, "/0", name):
                    if time.monotonic() > begin + seconds:
                        raise Invalid(f"{name} isn't served {seconds} s after its last flap")
                    time.sleep(0.01)
        return time.monotonic() - begin

    def begin(self):
        """From now on they flap."""
        self.stopping.clear()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def end(self):
        """Until here."""
        self.stopping.set()
        self.thread.join()
        if self.error:
            raise Invalid(f"flaps: {self.error}")

    def _run(self):
        """Each frpc gets a quarter of its tunnels changed four times a second, the frpc shifted against each other."""
        steps = TURNS * len(self.frpcs)
        begin, step = time.monotonic(), 0
        try:
            while not self.stopping.wait(max(0.0, begin + step / steps - time.monotonic())):
                frpc, turns = self.frpcs[step % len(self.frpcs)]
                for n in range((step // len(self.frpcs)) % TURNS, FLAPPERS, TURNS):
                    turns[n] += 1
                frpc.configure(self._proxies(frpc, turns))
                frpc.reload()
                step += 1
        except (OSError, Invalid) as error:
            self.error = str(error)


def threads(pid):
    """ns on CPU of the worker threads, and of all threads."""
    workers = total = 0
    for task in glob.glob(f"/proc/{pid}/task/*"):
        try:
            with open(f"{task}/schedstat") as counts, open(f"{task}/comm") as name:
                ns, worker = int(counts.read().split()[0]), name.read().startswith("worker-")
        except OSError:
            continue
        total += ns
        workers += ns if worker else 0
    return workers, total


def registrations(frps):
    """Proxies of flapping users that are online, by name, with when each began (s)."""
    items = frps.ask("/api/v2/proxies?status=online&pageSize=200&user=" + frps.name.replace("s", "flap"))["data"]["items"]
    return {item["name"]: item["status"]["lastStartAt"] for item in items}


def _registered(gateway):
    """NewProxy calls it has answered: one for each flap."""
    calls = gateway.metric("frp_gateway_plugin_calls_total", 'op="NewProxy"')
    if calls is None:
        raise Invalid(f"{gateway.name} doesn't count plugin calls")
    return calls


def _prove(before, after, flapping):
    """Raises unless every tunnel that both listings show was registered anew in between. Some are just away in each."""
    both = before.keys() & after.keys()
    same = [name for name in both if after[name] <= before[name]]
    if same or len(both) < FLAPPERS / 2:
        raise Invalid(f"{len(same)} of {len(both)} tunnels were not registered anew ({flapping.frpcs[0][0].messages()})")


def _fixed_rate(bench, gateway, seconds):
    """The load on tunnels; what went wrong is in the error."""
    log = os.path.join(bench.run_dir, "fixed_rate.log")
    command = [bench.tool("fixed_rate"), f"127.0.0.1:{gateway.port}", "/0", str(RATE), str(VISITORS), str(seconds)]
    child = process.start(command, EVERYWHERE, log, stdout=subprocess.PIPE)
    try:
        out, _ = child.communicate(timeout=seconds + 15)
    finally:
        process.stop(child)
    if child.returncode:
        with open(log, errors="replace") as file:
            raise Invalid(f"{gateway.name}: {file.read().strip()[-200:]}")
    return json.loads(out)


def measured(bench, gateway, kind, seconds):
    """One load on one gateway: CPU per request of its workers and of the whole process, p50 and p99."""
    way = Way(kind, gateway.port, gateway=gateway)
    usage, before = load.Usage(bench, way), threads(gateway.pid)
    if kind == "tunnels":
        seen = _fixed_rate(bench, gateway, seconds)
        seen |= {"p50": seen["p50"] / 1e3, "p99": seen["p99"] / 1e3, "rps": seen["requests"] / seconds}
    else:
        seen = load.wrk(bench, way, 64, seconds, EVERYWHERE)
        if seen["failed"]:
            raise Invalid(f"{seen['failed']} failed requests")
        seen["requests"] = seen["rps"] * seconds
    after, rest = threads(gateway.pid), usage.end()
    workers, whole = (b - a for a, b in zip(before, after))
    return {"workers_us": workers / 1e3 / seen["requests"], "whole_us": whole / 1e3 / seen["requests"],
            "control_percent": (whole - workers) / 1e7 / seconds, "rps": seen["rps"], "p50": seen["p50"], "p99": seen["p99"],
            "others": rest["others"]}


def flaps(fleet, rounds, seconds, progress):
    """Both loads on the gateway that follows the flaps and on one that knows nothing of them, with and without flaps."""
    bench = fleet.bench
    control = fleet.gateway("unconcerned").start(fleet.yaml(fleet.servers[:1], plugin=False))
    flapping = Flapping(fleet)
    gateways = {"concerned": fleet.main, "unconcerned": control}
    rows, begun, flapped, restored = {}, 0.0, 0.0, []
    for gateway in gateways.values():
        for kind in LOADS:
            measured(bench, gateway, kind, 2)
    for number in range(rounds):
        for on in (False, True) if number % 2 == 0 else (True, False):
            if on:
                start, calls = time.monotonic(), _registered(fleet.main)
                flapping.begin()
                time.sleep(0.5)
                before = registrations(fleet.servers[1])
            try:
                for who, gateway in gateways.items():
                    for kind in LOADS:
                        seen = load.quietly(bench, lambda gateway=gateway, kind=kind: measured(bench, gateway, kind, seconds))
                        rows.setdefault(kind, {}).setdefault(who, {}).setdefault("on" if on else "off", []).append(seen)
                        progress(f"    {number + 1} {kind} {who} {'flaps' if on else 'quiet'}: "
                                 + ", ".join(f"{key} {value:.2f}" for key, value in seen.items()))
                if on:
                    _prove(before, registrations(fleet.servers[1]), flapping)
            finally:
                if on:
                    flapping.end()
            if on:
                begun, flapped = begun + time.monotonic() - start, flapped + _registered(fleet.main) - calls
                restored.append(flapping.wait_served(10))
                time.sleep(1)
    control.stop()
    for frpc, _ in flapping.frpcs:
        frpc.stop()
    return {"rate": flapped / begun, "restored_s": max(restored), "rows": rows, "extra": extra(rows)}


def extra(rows):
    """Percent that flaps add: of medians, in this run."""
    result = {}
    for kind, whos in rows.items():
        for who, states in whos.items():
            for key in ("workers_us", "whole_us", "p99"):
                off, on = (statistics.median(one[key] for one in states[state]) for state in ("off", "on"))
                result.setdefault(kind, {}).setdefault(who, {})[key] = 100 * (on / off - 1)
    return result
