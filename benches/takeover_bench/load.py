"""What is put on a way, and what is read off its processes meanwhile."""

import os
import resource
import selectors
import socket
import time

from harness.measure import busy_ns, cpu_ns
from harness.process import Invalid, run_json

HOST = "app.test"
MOST_OTHERS = 5.0  # percent of the machine: a burst with more is repeated
TRIES = 3
PATIENCE = {"left": 200.0, "disturbed": True}  # s that a run waits, all in all, for others to become quiet; how it was last time


def quietly(bench, once):
    """The least disturbed of up to `TRIES`; content with the first one under the limit. Waits for quiet in between."""
    best = None
    for _ in range(TRIES):
        if PATIENCE["disturbed"]:
            _wait_for_quiet(bench)
        seen = once()
        PATIENCE["disturbed"] = seen["others"] > MOST_OTHERS
        if best is None or seen["others"] < best["others"]:
            best = seen
        if not PATIENCE["disturbed"]:
            break
    return best


def _wait_for_quiet(bench):
    """Until others left the machine alone for a second, or patience is at its end."""
    def theirs():
        return sum(map(busy_ns, cores)) - sum(map(cpu_ns, bench.pids()))

    cores = range(os.cpu_count())
    while PATIENCE["left"] > 0:
        time.sleep(0.2)  # a load that has just ended is still being accounted for
        before, begin = theirs(), time.monotonic()
        time.sleep(1)
        wall = time.monotonic() - begin
        PATIENCE["left"] -= wall
        if theirs() - before < MOST_OTHERS / 100 * len(cores) * wall * 1e9:
            return


def wrk(bench, way, connections, seconds, cores):
    """Closed loop with keep-alive: rates, latencies, and CPU per request of each program on the way."""
    script = os.path.join(os.path.dirname(__file__), "wrk.lua")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script,
               f"http://127.0.0.1:{way.port}", "--", bench.path, HOST]
    load = Usage(bench, way)
    counts = run_json(command, cores, seconds)
    seen = load.end()
    good = counts["requests"] - counts["status"]
    if good < 10:
        raise Invalid(f"{way.name}: {good} good answers of {counts['requests']} in {seconds} s")
    if seen["answered"] < good:
        raise Invalid(f"{way.name}: {good} answers, but the application gave only {seen['answered']}")
    return {
        "rps": good / counts["seconds"], "p50": counts["p50"] / 1e3, "p99": counts["p99"] / 1e3,
        "failed": counts["status"] + counts["errors"], "connects": 1000 * seen["accepted"] / good if bench.counts_connections else None, "others": seen["others"],
        "cpu": {name: ns / 1e3 / good for name, ns in seen["cpu"].items()},
    }


class Usage:
    """CPU of every process that belongs to the run, from here to `end`; what is left of the machine's is others'."""

    def __init__(self, bench, way):
        self.bench, self.way = bench, way
        self.before = self._now()

    def _now(self):
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        mine = time.process_time_ns() + int((children.ru_utime + children.ru_stime) * 1e9)
        return {
            "wall": time.monotonic_ns(), "machine": sum(busy_ns(core) for core in range(os.cpu_count())), "mine": mine,
            "cpu": {name: cpu_ns(pid) for name, pid in self.way.pids().items()}, "all": sum(map(cpu_ns, self.bench.pids())),
            "app": self.bench.backend.count(),
        }

    def end(self):
        """What was used since."""
        time.sleep(0.03)  # a running thread's count is a tick old
        before, after = self.before, self._now()
        ours = after["all"] - before["all"] + after["mine"] - before["mine"]
        wall = (after["wall"] - before["wall"]) * os.cpu_count()
        return {
            "cpu": {name: ns - before["cpu"][name] for name, ns in after["cpu"].items()},
            "others": max(0.0, 100 * (after["machine"] - before["machine"] - ours) / wall),
            "answered": sum(after["app"]["answered"]) - sum(before["app"]["answered"]),
            "accepted": after["app"]["accepted"] - before["app"]["accepted"] - 1,  # one is our own question
        }


class Visitors:
    """Some visitors with a connection each, who ask all at once, and again when all have their answers."""

    def __init__(self, port, number, path):
        self.request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: identity\r\n\r\n".encode()
        self.streams = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(number)]
        for stream in self.streams:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def burst(self):
        """One request of each: when each was answered, in ms, and how many didn't get 200 (and never ask again)."""
        begin, took, failed = time.monotonic(), [], 0
        with selectors.DefaultSelector() as waiting:
            for stream in self.streams:
                stream.sendall(self.request)
                waiting.register(stream, selectors.EVENT_READ, bytearray())
            while waiting.get_map():
                ready = waiting.select(10)
                if not ready:
                    raise Invalid(f"{len(waiting.get_map())} visitors have waited 10 s")
                for key, _ in ready:
                    data = key.fileobj.recv(1 << 16)
                    key.data.extend(data)
                    if not data or not b"HTTP/1.1 200".startswith(bytes(key.data[:12])):
                        failed += 1
                        waiting.unregister(key.fileobj)
                        self.streams.remove(key.fileobj)
                        key.fileobj.close()
                    elif b"\r\n\r\n" in key.data:  # the answer has no body
                        took.append(1e3 * (time.monotonic() - begin))
                        waiting.unregister(key.fileobj)
        return took, failed

    def close(self):
        """They leave."""
        for stream in self.streams:
            stream.close()


def bursts(bench, way, number, times, pause):
    """`times` bursts of `number` visitors, `pause` seconds apart: new tunnel connections per 1,000 requests, and latency."""
    visitors, took, failed = Visitors(way.port, number, bench.path), [], 0
    try:
        usage = Usage(bench, way)
        for _ in range(times):
            answered, lost = visitors.burst()
            took, failed = took + answered, failed + lost
            time.sleep(pause)
        seen = usage.end()
    finally:
        visitors.close()
    took.sort()
    if not took:
        raise Invalid(f"{way.name}: no visitor got an answer")
    return {"failed": failed, "connects": 1000 * seen["accepted"] / len(took), "p99": took[int(0.99 * len(took))], "p50": took[len(took) // 2],
            "others": seen["others"]}
