"""Real frps and frpc 0.71 with files of our own, and the gateway and haproxy in front of them."""

import base64
import http.client
import json
import itertools
import os
import random
import socket

from harness import process
from harness.measure import get
from harness.process import Invalid

PASSWORD = "lab"
TOKEN = "lab-token"
KEY = "0123456789abcdef0123456789abcdef"  # seals annotations; a lab's, so no secret

FRPS = """\
bindAddr = "127.0.0.1"
bindPort = {control}
proxyBindAddr = "127.0.0.1"
vhostHTTPPort = {vhost}
auth.token = "{token}"
log.level = "warn"
log.disablePrintColor = true
allowPorts = [ {{ start = {first}, end = {last} }} ]
webServer = {{ addr = "127.0.0.1", port = {admin}, user = "admin", password = "{password}" }}
"""
PLUGIN = """\
[[httpPlugins]]
name = "gateway"
addr = "http://127.0.0.1:{port}"
path = "/frps/{secret}"
ops = ["Login", "NewProxy", "CloseProxy"]
"""
FRPC = """\
user = "{user}"
serverAddr = "127.0.0.1"
serverPort = {control}
loginFailExit = false
auth.token = "{token}"
log.level = "warn"
log.disablePrintColor = true
webServer = {{ addr = "127.0.0.1", port = {admin} }}
"""


_PORTS = itertools.cycle(random.sample(range(10_000, 20_000), 10_000))


def port():
    """A loopback port that nobody has, below those that the system gives to outgoing connections: it stays free till used."""
    for number in _PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
                return number
            except OSError:
                continue


class Program:
    """A child with a folder of its own for its files and its log."""

    def __init__(self, run_dir, name, cores):
        self.name, self.cores, self.child = name, cores, None
        self.folder = os.path.join(run_dir, name)
        os.makedirs(self.folder, exist_ok=True)

    @property
    def pid(self):
        """Of the running process."""
        return self.child.pid

    def write(self, name, text):
        """A file in its folder, replaced at once, and its path."""
        path = os.path.join(self.folder, name)
        with open(path + ".new", "w") as file:
            file.write(text)
        os.rename(path + ".new", path)
        return path

    def spawn(self, command, env=None):
        """Starts it."""
        self.child = process.start(command, self.cores, os.path.join(self.folder, "log"), {"HOME": self.folder} | (env or {}))
        return self

    def messages(self):
        """The end of its log."""
        with open(os.path.join(self.folder, "log"), errors="replace") as file:
            return " | ".join(file.read().splitlines()[-4:]) or "no messages"

    def stop(self):
        """Ends it."""
        if self.child:
            process.stop(self.child)

    def wait(self, condition, what, seconds=20):
        """Until `condition()`; with its log in the error when it ended or the time is up."""
        def met():
            if self.child.poll() is not None:
                raise Invalid(f"{self.name} ended with {self.child.returncode}: {self.messages()}")
            return condition()

        try:
            process.wait_until(met, seconds, what)
        except Invalid as error:
            raise Invalid(f"{error} ({self.name}: {self.messages()})") from None
        return self


class Frps(Program):
    """One frps. `ports` are those it may open for tunnels; `plugin` is the gateway's port for it, or none."""

    def __init__(self, bench, name, cores, ports, plugin=None):
        super().__init__(bench.run_dir, name, cores)
        self.bench, self.control, self.vhost, self.admin = bench, *(port() for _ in range(3))
        self.secret = f"{name}-0123456789abcdef"
        self.ports, self.plugin = ports, plugin

    def start(self):
        """Starts it and returns once its admin API answers."""
        text = FRPS.format(control=self.control, vhost=self.vhost, token=TOKEN, first=self.ports[0], last=self.ports[1],
                           admin=self.admin, password=PASSWORD)
        if self.plugin:
            text += PLUGIN.format(port=self.plugin, secret=self.secret)
        self.spawn([self.bench.frp("frps"), "-c", self.write("frps.toml", text)])
        return self.wait(lambda: answers(self.admin, "/healthz"), f"{self.name} answering")

    def ask(self, path):
        """The data of its admin API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        try:
            word = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
            connection.request("GET", path, headers={"Authorization": f"Basic {word}"})
            return json.load(connection.getresponse())
        finally:
            connection.close()

    def online(self):
        """How many tunnels it lists as online."""
        return self.ask("/api/v2/proxies?status=online&pageSize=1")["data"]["total"]

    def yaml(self, admin=True, plugin=True, interval=None):
        """Its entry in the gateway's file."""
        every = f", interval: {interval}" if interval else ""
        parts = [f"name: {self.name}", "host: 127.0.0.1", f"vhost_http_port: {self.vhost}"]
        if admin:
            parts.append(f'admin: {{ url: "http://127.0.0.1:{self.admin}", password: {PASSWORD}{every} }}')
        if plugin:
            parts += [f"plugin: {{ secret: {self.secret} }}", "tunnel_host: 127.0.0.1"]
        return f"  - {{ {', '.join(parts)} }}"


class Frpc(Program):
    """One frpc of `user` on `frps`."""

    def __init__(self, bench, name, cores, frps, user):
        super().__init__(bench.run_dir, name, cores)
        self.bench, self.frps, self.user, self.admin = bench, frps, user, port()

    def configure(self, proxies):
        """Writes its file, whose proxies are `proxies` (texts of TOML)."""
        head = FRPC.format(user=self.user, control=self.frps.control, token=TOKEN, admin=self.admin)
        return self.write("frpc.toml", head + "\n".join(proxies))

    def start(self, proxies):
        """Starts it, without waiting for its tunnels."""
        return self.spawn([self.bench.frp("frpc"), "-c", self.configure(proxies)])

    def reload(self):
        """Has it read its file again."""
        status, _, body = get(self.admin, "/api/reload", "127.0.0.1", 10)
        if status != 200:
            raise Invalid(f"{self.name}: reload says {status} {body[:80]!r}")


def proxy(name, kind, local, **keys):
    """TOML of one proxy to `local`; further `keys` as they stand."""
    lines = ["[[proxies]]", f'name = "{name}"', f'type = "{kind}"', f"localPort = {local}"]
    return "\n".join([*lines, *(f"{key.replace('__', '.')} = {value}" for key, value in keys.items())]) + "\n"


class Gateway(Program):
    """One gateway with a file of ours; `{web}`, `{admin}` and `{plugin}` in it become ports."""

    def __init__(self, bench, name, cores, plugin=None):
        super().__init__(bench.run_dir, name, cores)
        self.bench, self.port, self.admin = bench, port(), port()
        self.plugin = plugin

    def start(self, text):
        """Starts it and returns once it is ready."""
        lines = [f'admin: {{ listen: "127.0.0.1:{self.admin}" }}',
                 f'listeners: [ {{ name: web, bind: "127.0.0.1:{self.port}", protocol: http }} ]']
        if self.plugin:
            lines.append(f'plugin: {{ listen: "127.0.0.1:{self.plugin}", key: "{KEY}" }}')
        path = self.write("gateway.yaml", "\n".join([*lines, text]) + "\n")
        self.spawn([self.bench.gateway, "run", "-c", path], {"FRP_GATEWAY_LOG_LEVEL": "warn"})
        return self.wait(lambda: answers(self.admin, "/readyz"), f"{self.name} ready")

    def metric(self, name, label=""):
        """Sum of all samples of a metric whose labels contain `label`; None without any."""
        text = get(self.admin, "/metrics", "127.0.0.1")[2].decode()
        values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name and label in line]
        return sum(values) if values else None


class Haproxy(Program):
    """haproxy before one server, threads and buffers as it comes."""

    def __init__(self, bench, name, cores):
        super().__init__(bench.run_dir, name, cores)
        self.port = port()

    def start(self, server, host, path="/0"):
        """Starts it and returns once it serves `host`."""
        text = f"""\
global
    maxconn 4000
defaults
    mode http
    option forwardfor
    http-reuse always
    timeout connect 5s
    timeout http-request 10s
    timeout http-keep-alive 300s
    timeout client 300s
    timeout server 60s
frontend web
    bind 127.0.0.1:{self.port}
    use_backend app if {{ hdr(host) -i {host} }}
backend app
    server frps 127.0.0.1:{server}
"""
        self.spawn(["haproxy", "-db", "-f", self.write("haproxy.cfg", text)])
        return self.wait(lambda: answers(self.port, path, host), "haproxy serving")


def answers(port, path, host="127.0.0.1"):
    """Whether a GET gets 200 now."""
    try:
        return get(port, path, host)[0] == 200
    except (OSError, ValueError):
        return False
