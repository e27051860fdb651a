"""What is read off a contestant, and the load that is put on it. Every burst checks itself and raises `Invalid`."""

import glob
import json
import os
import re
import select
import signal
import socket
import subprocess
import time

from .process import LOAD_CORES, Invalid, run_json, start, stop

BACKENDS = 3
SIZES = {"/0": 0, "/1k": 1 << 10, "/64k": 64 << 10, "/1m": 1 << 20}


def get(port, path, host="h0.example.com", timeout=5):
    """One GET on a connection of its own: (status, head, body)."""
    with socket.create_connection(("127.0.0.1", port), timeout) as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        data = b"".join(iter(lambda: stream.recv(1 << 16), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    return int(words[1]) if len(words) > 1 else 0, head.decode(errors="replace"), body


def tree(pid):
    """`pid` and all its descendants."""
    pids = [pid]
    for parent in pids:
        for children in glob.glob(f"/proc/{parent}/task/*/children"):
            try:
                with open(children) as file:
                    pids += map(int, file.read().split())
            except OSError:
                pass
    return pids


def cpu_ns(pid):
    """Nanoseconds on CPU so far, all threads and child processes (/proc/PID/stat counts in ticks of 10 ms: too coarse)."""
    total = 0
    for one in tree(pid):
        for task in glob.glob(f"/proc/{one}/task/*/schedstat"):
            try:
                with open(task) as file:
                    total += int(file.read().split()[0])
            except OSError:
                pass
    return total


def pss_kb(pid):
    """Proportional set size of all its processes, in KiB. Kernel socket memory isn't in it."""
    total = 0
    for one in tree(pid):
        with open(f"/proc/{one}/smaps_rollup") as file:
            total += int(re.search(r"^Pss:\s+(\d+)", file.read(), re.MULTILINE)[1])
    return total


def busy_ns(core):
    """Time that `core` has worked so far, by the kernel's count (ticks of 10 ms)."""
    with open("/proc/stat") as file:
        fields = re.search(rf"^cpu{core} (.*)$", file.read(), re.MULTILINE)[1].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def burst(bench, contestant, load, path, cores_for_load=None):
    """Runs `load` (a function of cores → counts) against `contestant`; returns its CPU per request and what else was seen."""
    backend, cpu, core, begin = bench.backend.count(), cpu_ns(contestant.pid), busy_ns(0), time.monotonic()
    counts = load(cores_for_load or LOAD_CORES)
    time.sleep(0.03)  # let it go idle: a running thread's schedstat is a tick old
    wall = counts.get("seconds", time.monotonic() - begin) * 1e9
    cpu, core = cpu_ns(contestant.pid) - cpu, busy_ns(0) - core
    after = bench.backend.count()
    requests = counts["requests"]
    answered = [b - a for a, b in zip(backend["answered"], after["answered"])]
    accepted = after["accepted"] - backend["accepted"]

    if counts.get("errors"):
        raise Invalid(f"{counts['errors']} socket errors or answers that aren't 200")
    if requests == 0 or cpu < 1000 * requests:  # no proxy needs less than a microsecond
        raise Invalid(f"{requests} requests cost {cpu} ns: another process may have answered")
    # wrk's bytes include answers that the end cut short: at most one per connection
    if "bytes" in counts and not 0 <= counts["bytes"] - SIZES[path] * requests <= 1024 * requests + 64 * SIZES[path]:
        raise Invalid(f"{counts['bytes'] / requests:.0f} bytes per answer for {path}")
    if sum(answered) < requests:
        raise Invalid(f"{requests} answers, but the backend gave only {sum(answered)}")
    if requests > 3000 and not all(0.25 <= one / sum(answered) <= 0.42 for one in answered):
        raise Invalid(f"not round robin: {answered}")
    if requests > 3000 and accepted > requests / 10:
        raise Invalid(f"no keep-alive upstream: {accepted} connections for {requests} requests")
    return counts | {
        "cpu_us": cpu / 1e3 / requests,
        "rps": requests / counts["seconds"] if "seconds" in counts else None,
        "proxy_busy": cpu / wall,
        "others_on_core": max(0.0, (core - cpu) / wall),
        "upstream_connects": accepted,
    }


def wrk(bench, contestant, path, seconds, threads=1, connections=64):
    """Keep-alive load, closed loop, by wrk."""
    script = os.path.join(bench.peers_dir, "wrk.lua")
    return lambda cores: run_json(
        ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script,
         f"http://127.0.0.1:{contestant.port}", "--", path], cores, seconds)


def reconnect(bench, contestant, path, seconds, concurrency=32):
    """A new connection for each request, closed loop."""
    return lambda cores: run_json(
        [bench.tool("reconnect"), f"127.0.0.1:{contestant.port}", path, str(concurrency), str(seconds)], cores, seconds)


def fixed_rate(bench, contestant, path, seconds, rate=2000, connections=4):
    """Open-loop load; latencies from when a request was due."""
    return lambda cores: run_json(
        [bench.tool("fixed_rate"), f"127.0.0.1:{contestant.port}", path, str(rate), str(connections), str(seconds)],
        cores, seconds)


def idle_connections_kb(contestant, number):
    """KiB of PSS per idle keep-alive connection: `number` of them, one request each. Wants a freshly started contestant."""
    for n in range(200):
        get(contestant.port, "/1k", f"h{n}.example.com")
    time.sleep(0.5)
    before = pss_kb(contestant.pid)
    streams = []
    poll = select.poll()
    try:
        for n in range(number):
            stream = socket.create_connection(("127.0.0.1", contestant.port), 5)
            streams.append(stream)
            stream.sendall(f"GET /1k HTTP/1.1\r\nHost: h{n % 1000}.example.com\r\nAccept: */*\r\n\r\n".encode())
            data = b""
            while len(data.partition(b"\r\n\r\n")[2]) < SIZES["/1k"]:
                more = stream.recv(1 << 16)
                if not more:
                    raise Invalid(f"connection {n} of {number} was closed")
                data += more
            if not data.startswith(b"HTTP/1.1 200"):
                raise Invalid(f"connection {n}: {data[:40]!r}")
            poll.register(stream, select.POLLIN)
        time.sleep(1)
        after = pss_kb(contestant.pid)
        gone = len(poll.poll(0))
        if gone:
            raise Invalid(f"{gone} of {number} idle connections were closed")
        return (after - before) / number
    finally:
        for stream in streams:
            stream.close()


def syscalls(bench, contestant, load, path):
    """System calls per request under strace, by name. It slows the proxy, which batches more: read data calls only."""
    out = os.path.join(bench.run_dir, f"strace-{contestant.name}")
    pids = [word for pid in tree(contestant.pid) for word in ("-p", str(pid))]
    tracer = start(["strace", "-f", "-c", "-U", "calls,name", "-o", out, *pids], LOAD_CORES, log=os.devnull)
    try:
        time.sleep(0.5)
        requests = burst(bench, contestant, load, path)["requests"]
        tracer.send_signal(signal.SIGINT)  # it detaches and writes its table
        tracer.wait(10)
    except subprocess.TimeoutExpired:
        raise Invalid("strace didn't end") from None
    finally:
        stop(tracer)
    with open(out) as file:
        rows = [line.split() for line in file if re.match(r"\s*\d+\s+\w+\s*$", line)]
    return {name: int(calls) / requests for calls, name in rows if name != "total" and int(calls) / requests >= 0.005}


class Backend:
    """The three backend ports, as the harness asks them. Latency tables call it `direct`."""

    name = "direct"

    def __init__(self, binary, log):
        self.child = start([binary], LOAD_CORES, stdout=subprocess.PIPE, log=log)
        self.ports = [int(word) for word in self.child.stdout.readline().split()]
        if len(self.ports) != BACKENDS:
            raise Invalid(f"the backend didn't start: exit {self.child.wait(5)}")
        self.port = self.ports[0]

    def count(self):
        """Answers given per port and connections accepted, so far."""
        try:
            return json.loads(get(self.port, "/count")[2])
        except (OSError, ValueError) as error:
            raise Invalid(f"the backend is gone (exit {self.child.poll()}): {error}") from error
