"""What is read off a contestant, and the load that is put on it. Every burst checks itself and raises `Invalid`."""

import glob
import json
import os
import re
import select
import signal
import socket
import ssl
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


def burst(bench, contestant, load, path, cores_for_load=None, requests_pass=True):
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
    if not requests_pass:  # handshakes alone: nothing reaches the backend
        return counts | {"cpu_us": cpu / 1e3 / requests, "rps": 1e9 * requests / wall, "proxy_busy": cpu / wall,
                         "others_on_core": max(0.0, (core - cpu) / wall), "upstream_connects": accepted}
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


def wrk_tls(bench, contestant, path, seconds):
    """As `wrk`, over TLS: 64 connections that are kept."""
    script = os.path.join(bench.peers_dir, "wrk.lua")
    return lambda cores: run_json(
        ["wrk", "-t1", "-c64", f"-d{seconds}s", "--timeout", "10s", "-s", script,
         f"https://127.0.0.1:{contestant.tls_port}", "--", path], cores, seconds)


def run_text(command, cores, seconds):
    """What a load generator that speaks no JSON prints."""
    child = start(command, cores, stdout=subprocess.PIPE, log=os.devnull)
    try:
        out, _ = child.communicate(timeout=seconds + 15)
    except subprocess.TimeoutExpired:
        raise Invalid(f"{command[0]} didn't end") from None
    finally:
        stop(child)
    return out.decode(errors="replace")


def handshakes(bench, contestant, path, seconds):
    """Full TLS 1.3 handshakes one after the other, by openssl (wrk would resume sessions)."""
    def load(cores):
        text = run_text(["openssl", "s_time", "-new", "-tls1_3", "-connect", f"127.0.0.1:{contestant.tls_port}", "-time", str(seconds)],
                        cores, seconds)
        found = re.search(r"(\d+) connections in ([\d.]+) real seconds", text)
        if not found:
            raise Invalid(f"openssl s_time says {text[-200:]!r}")
        return {"requests": int(found[1])}

    return load


def h2load(bench, contestant, path, seconds):
    """HTTP/2 over TLS: 16 connections of 8 streams each, closed loop."""
    fields = ["-H", ":authority: h0.example.com", "-H", "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
              "-H", "accept-language: en-US,en;q=0.5", "-H", "cookie: session=0123456789abcdef0123456789abcdef"]

    def load(cores):
        # Several -D runs warm up for a while; a number of requests doesn't, and 10,000 per second is below everyone's rate.
        number = 16_000 * seconds
        begin = time.monotonic()
        text = run_text(["h2load", "-t1", "-c16", "-m8", f"-n{number}", *fields, f"https://127.0.0.1:{contestant.tls_port}{path}"],
                        cores, 4 * seconds)
        wall = time.monotonic() - begin
        found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text)
        status = re.search(r"status codes: (\d+) 2xx", text)
        if not found or not status:
            raise Invalid(f"h2load says {text[-300:]!r}")
        return {"requests": int(status[1]), "errors": number - int(status[1]), "seconds": wall}

    return load


def idle_tls_kb(contestant, number, http2):
    """KiB of PSS per idle connection over TLS after one request each. Wants a freshly started contestant."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"] if http2 else ["http/1.1"])
    context.options |= ssl.OP_NO_TICKET

    def connect():
        stream = context.wrap_socket(socket.create_connection(("127.0.0.1", contestant.tls_port), 5), server_hostname="h0.example.com")
        if http2:
            head = b"\x82\x87\x04\x03/1k\x01\x0eh0.example.com"
            stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\x00" + bytes(4)
                           + len(head).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + head)
            data, ended = b"", False
            while not ended:
                more = stream.recv(1 << 16)
                if not more:
                    raise Invalid("a connection was closed")
                data += more
                while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
                    length, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
                    if kind in (3, 7):
                        raise Invalid(f"frame {kind}: {data[:40]!r}")
                    ended |= kind in (0, 1) and flags & 1 == 1
                    data = data[9 + length:]
        else:
            stream.sendall(b"GET /1k HTTP/1.1\r\nHost: h0.example.com\r\n\r\n")
            data = b""
            while len(data.partition(b"\r\n\r\n")[2]) < SIZES["/1k"]:
                more = stream.recv(1 << 16)
                if not more:
                    raise Invalid("a connection was closed")
                data += more
        return stream

    warm = [connect() for _ in range(50)]
    for stream in warm:
        stream.close()
    time.sleep(0.5)
    before = pss_kb(contestant.pid)
    streams = []
    try:
        for _ in range(number):
            streams.append(connect())
        time.sleep(1)
        return (pss_kb(contestant.pid) - before) / number
    finally:
        for stream in streams:
            stream.close()


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
