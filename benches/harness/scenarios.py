"""What is measured, what must hold (shared with the tables of RESULTS.md), and how a round of it runs."""

from dataclasses import dataclass, field
import statistics
import time

from . import measure
from .contestants import Contestant
from .process import Invalid, wait_until

OURS = "frp-gateway"
BEST = ("haproxy", "haproxy-64k", "nginx")  # the better of these in the same run is 1.00


@dataclass
class Metric:
    """One table: a value per contestant and round, and limits on ours."""

    key: str
    title: str
    unit: str
    must: float | None = None  # of the ratio, or of the value itself if `absolute`
    target: float | None = None
    absolute: bool = False
    against: tuple = BEST
    higher_is_better: bool = False
    digits: int = 1
    ours: str = OURS


@dataclass
class Scenario:
    """A group of metrics that one kind of round yields."""

    name: str
    about: str
    metrics: list
    run: object  # (bench, scenario) → {metric key: {contestant: [value per round]}}
    options: dict = field(default_factory=dict)


def median(values):
    return statistics.median(values)


def interleaved(bench, contestants, rounds, once):
    """`once(contestant)` → {metric: value} for each, `rounds` times, in reversed order every other time."""
    results = {}
    for number in range(rounds):
        for contestant in contestants if number % 2 == 0 else contestants[::-1]:
            try:
                values = once(contestant)
            except (Invalid, OSError, KeyError, ValueError) as error:
                raise Invalid(f"{contestant.name}, round {number + 1}: {error}") from error
            bench.progress(f"    {number + 1}/{rounds} {contestant.name}: "
                           + ", ".join(f"{key} {value:.1f}" for key, value in values.items() if value is not None))
            for key, value in values.items():
                if value is not None:
                    results.setdefault(key, {}).setdefault(contestant.name, []).append(value)
    return results


def bursts(bench, scenario):
    """Closed-loop load on the running contestants: CPU per request, requests per second, how busy the core was."""
    options = scenario.options
    make, path = options["load"], options["path"]
    own = [started(bench, **extra) for extra in options.get("extra", []) if extra["kind"] in bench.kinds]
    others = [one for one in bench.contestants if one.kind not in options.get("without", ())]
    contestants = own if options.get("only_extra") else others + own
    cores = options.get("load_cores")

    def once(contestant, seconds=bench.seconds):
        seen = measure.burst(bench, contestant, make(bench, contestant, path, seconds), path, cores,
                             options.get("requests_pass", True))
        return {"cpu": seen["cpu_us"], "rps": seen["rps"], "busy": 100 * seen["proxy_busy"],
                "others": 100 * seen["others_on_core"]}

    try:
        for contestant in contestants:
            try:
                once(contestant, 1)
            except Invalid as error:
                raise Invalid(f"{contestant.name}, warm-up: {error}") from error
        return interleaved(bench, contestants, bench.rounds, once)
    finally:
        for contestant in own:
            contestant.stop()


def latency(bench, scenario):
    """Percentiles at a fixed rate; `direct` is the backend without a proxy."""
    def once(contestant, seconds=bench.seconds + 1):
        load = measure.fixed_rate(bench, contestant, "/1k", seconds)
        if contestant is bench.backend:
            seen = load(measure.LOAD_CORES)
        else:
            seen = measure.burst(bench, contestant, load, "/1k")
        return {key: seen[key] for key in ("p50", "p99", "p999")}

    contestants = [bench.backend, *bench.contestants]
    for contestant in contestants:
        once(contestant, 1)
    return interleaved(bench, contestants, bench.rounds, once)


def idle(bench, scenario):
    """Memory of idle connections, on fresh processes: a used one would serve them from memory it holds already."""
    def once(contestant):
        fresh = contestant.twin().start()
        try:
            return {"kb": measure.idle_connections_kb(fresh, 9_000)}
        finally:
            fresh.stop()

    return interleaved(bench, bench.contestants, 1 if bench.quick else 3, once)


def idle_tls(bench, scenario):
    """The same over TLS, by HTTP/1 and by HTTP/2."""
    def once(contestant):
        values = {}
        for key in ("h1", "h2"):
            fresh = contestant.twin().start()
            try:
                values[key] = measure.idle_tls_kb(fresh, 2_000, key == "h2")
            finally:
                fresh.stop()
        return values

    return interleaved(bench, [one for one in bench.contestants if one.kind != "pingora"], 1 if bench.quick else 3, once)


def startup(bench, scenario):
    """From spawning the process to its first 200, and its memory half a second later."""
    def once(contestant):
        fresh = contestant.twin()
        fresh.configure()
        try:
            start = time.monotonic()
            fresh.spawn()
            wait_until(fresh.serves, 20, "serving")
            ready = time.monotonic() - start
            time.sleep(0.5)
            return {"ms": 1e3 * ready, "mb": measure.pss_kb(fresh.pid) / 1024}
        finally:
            fresh.stop()

    return interleaved(bench, bench.contestants, bench.rounds, once)


def syscalls(bench, scenario):
    """One burst per contestant under strace: the four data calls and the rest, per request."""
    results = {"calls": {}, "data": {}}
    data = {"read", "write", "readv", "writev", "recv", "recvfrom", "recvmsg", "send", "sendto", "sendmsg"}
    for contestant in bench.contestants:
        load = measure.wrk(bench, contestant, "/1k", 2)
        seen = measure.syscalls(bench, contestant, load, "/1k")
        bench.progress(f"    {contestant.name}: " + ", ".join(f"{name} {calls:.2f}" for name, calls in seen.items()))
        bench.notes.setdefault("syscalls", {})[contestant.name] = seen
        results["calls"][contestant.name] = [sum(seen.values())]
        results["data"][contestant.name] = [sum(calls for name, calls in seen.items() if name in data)]
    return results


def started(bench, **extra):
    """A contestant that only one scenario has."""
    return Contestant(bench, **extra).start()


def _cpu(must=None, target=None, **more):
    return [Metric("cpu", "CPU per request", "µs", must, target, **more),
            Metric("rps", "requests per second", "/s", higher_is_better=True, digits=0, **more),
            Metric("busy", "proxy's use of its core", "%", against=(), digits=0),
            Metric("others", "others on it", "%", against=())]


def _keepalive(name, size, must, target, **options):
    about = f"HTTP/1.1 keep-alive, {size} answer; 64 connections, proxy on one core"
    return Scenario(name, about, _cpu(must, target), bursts, {"load": measure.wrk, **options})


BIG_BUFFERS = [{"kind": "haproxy", "name": "haproxy-64k", "bufsize": 65536}]
BOTH = {0, 1}

SCENARIOS = [
    _keepalive("h1-0", "empty", 1.00, 0.85, path="/0"),
    _keepalive("h1-1k", "1 KiB", 1.00, 0.85, path="/1k"),
    _keepalive("h1-64k", "64 KiB", 1.20, 1.00, path="/64k", extra=BIG_BUFFERS),
    _keepalive("h1-1m", "1 MiB", 1.15, 1.00, path="/1m", extra=BIG_BUFFERS),
    Scenario("h1-new", "HTTP/1.1, new connection per request, 1 KiB answer; 32 at a time, proxy on one core",
             _cpu(1.15, 1.00), bursts, {"load": measure.reconnect, "path": "/1k"}),
    Scenario("workers", "1 KiB keep-alive with proxy, load and backend all free to use both cores; ratio is to our one worker",
             _cpu(1.08, 1.05, against=(f"{OURS}-1w",), ours=f"{OURS}-2w")[:2], bursts,
             {"load": lambda *args: measure.wrk(*args, threads=2), "path": "/1k", "load_cores": BOTH, "only_extra": True,
              "extra": [{"kind": kind, "name": f"{kind}-{n}w", "workers": n, "cores": BOTH}
                        for kind in (OURS, "haproxy", "nginx", "pingora") for n in (1, 2)]}),
    Scenario("latency", "2,000 requests per second over 4 connections, 1 KiB; counted from when each was due",
             [Metric("p50", "p50", "µs", digits=0), Metric("p99", "p99", "µs", 1.3, 1.0, digits=0),
              Metric("p999", "p99.9", "µs", digits=0)], latency),
    Scenario("idle", "memory of 9,000 idle keep-alive connections after one request each (PSS; no kernel memory)",
             [Metric("kb", "per connection", "KiB", 6, 4, absolute=True, digits=2)], idle),
    Scenario("tls-1k", "HTTP/1.1 over TLS 1.3, keep-alive, 1 KiB answer; 64 connections, proxy on one core",
             _cpu(0.90, 0.75), bursts, {"load": measure.wrk_tls, "path": "/1k", "without": {"pingora", "caddy"}}),  # wrk asks for a name that is an address: caddy refuses it
    Scenario("tls-new", "full TLS 1.3 handshakes, P-256, connect and close included; one after the other, proxy on one core",
             _cpu(0.80, 0.60), bursts, {"load": measure.handshakes, "path": "/0", "without": {"pingora"}, "requests_pass": False}),
    Scenario("h2-1k", "HTTP/2 over TLS 1.3, 1 KiB answer; 16 connections of 8 streams, proxy on one core",
             [Metric("cpu", "CPU per request", "µs", 1.05, against=("nginx",)), *_cpu()[1:]],
             bursts, {"load": measure.h2load, "path": "/1k", "without": {"pingora"}}),
    Scenario("idle-tls", "memory of 2,000 idle connections over TLS after one request each (PSS; no kernel memory)",
             [Metric("h1", "per connection, HTTP/1.1", "KiB", absolute=True, digits=2),
              Metric("h2", "per connection, HTTP/2", "KiB", absolute=True, digits=2)], idle_tls),
    Scenario("startup", "a fresh process with 1,000 routes",
             [Metric("ms", "start to first 200", "ms", 100, 30, absolute=True),
              Metric("mb", "PSS at start", "MiB")], startup),
    Scenario("syscalls", "system calls per request under strace, 1 KiB keep-alive (strace exaggerates batching)",
             [Metric("calls", "all", "calls", digits=2), Metric("data", "reads and writes", "calls", digits=2)], syscalls),
]
OPTIONAL = {"syscalls"}  # only with --strace or --only syscalls
