"""Who is measured: how each is configured and started, and the proof that it does the whole job."""

import os

from . import process
from .measure import SIZES, get
from .process import Invalid
from .render import HOSTS, render

# name → (template files and what they are called in the run folder, command). {…} are the values of `Contestant.start`.
KINDS = {
    "haproxy": ({"haproxy.cfg": "haproxy.cfg", "haproxy.map": "hosts.map"}, ["haproxy", "-db", "-f", "{DIR}/haproxy.cfg"]),
    "nginx": ({"nginx.conf": "nginx.conf"}, ["nginx", "-p", "{DIR}", "-e", "stderr", "-c", "{DIR}/nginx.conf"]),
    "caddy": ({"Caddyfile": "Caddyfile"}, ["{BIN}/caddy", "run", "--adapter", "caddyfile", "--config", "{DIR}/Caddyfile"]),
    "pingora": ({}, ["{TOOLS}/pingora-yardstick", "{PORT}", "{WORKERS}", "{BACKEND_PORTS}"]),
    "frp-gateway": ({"frp-gateway.yaml": "gateway.yaml"}, ["{GATEWAY}", "run", "-c", "{DIR}/gateway.yaml"]),
}
PEERS = [name for name in KINDS if name != "frp-gateway"]


class Contestant:
    """One running proxy. `name` is what tables show; two of one kind differ in workers, buffers or binary."""

    def __init__(self, bench, kind, name=None, workers=1, cores=None, bufsize=16384, binary=None):
        self.bench, self.kind, self.name = bench, kind, name or kind
        self.workers, self.cores, self.bufsize, self.binary = workers, cores or process.PROXY_CORES, bufsize, binary
        self.child = None

    def twin(self):
        """One just like it that isn't running."""
        return Contestant(self.bench, self.kind, self.name, self.workers, self.cores, self.bufsize, self.binary)

    @property
    def pid(self):
        """Of the first process; workers are its children."""
        return self.child.pid

    def configure(self):
        """Picks free ports and writes the configuration."""
        self.port, self.tls_port = process.free_port(), process.free_port()
        folder = os.path.join(self.bench.run_dir, f"{self.name}-{self.port}")
        os.makedirs(folder)
        ports = self.bench.backend.ports
        values = {
            "DIR": folder, "PORT": self.port, "TLS_PORT": self.tls_port, "WORKERS": self.workers, "BUFSIZE": self.bufsize,
            "ADMIN_PORT": process.free_port(), "USER": "root" if os.getuid() == 0 else "nobody",
            "BIN": self.bench.bin_dir, "TOOLS": self.bench.tools_dir, "GATEWAY": self.binary or self.bench.gateway,
            **self.bench.certificate,
        }
        templates, command = KINDS[self.kind]
        for template, name in templates.items():
            with open(os.path.join(self.bench.peers_dir, template)) as file:
                text = render(file.read(), values, ports)
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
        self.command = []
        for word in command:
            self.command += map(str, ports) if word == "{BACKEND_PORTS}" else [word.format(**values)]
        self.log = os.path.join(folder, "log")
        self.env = {"GOMAXPROCS": str(self.workers), "HOME": folder, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}

    def spawn(self):
        """Starts it, without waiting for it to serve."""
        self.child = process.start(self.command, self.cores, self.log, self.env)

    def serves(self):
        """Whether a request is answered with 200 now."""
        if self.child.poll() is not None:
            raise Invalid(f"{self.name} ended with {self.child.returncode}: {self.messages()}")
        try:
            return get(self.port, "/1k")[0] == 200
        except OSError:
            return False

    def start(self):
        """Starts it and returns once it serves."""
        self.configure()
        self.spawn()
        process.wait_until(self.serves, 20, f"{self.name} serving ({self.messages()})")
        return self

    def stop(self):
        """Ends it."""
        if self.child:
            process.stop(self.child)

    def messages(self):
        """The end of its log."""
        try:
            with open(self.log, errors="replace") as file:
                return " | ".join(file.read().splitlines()[-4:]) or "no messages"
        except OSError:
            return "no log"

    def prove(self):
        """Raises unless it does the same job as the others: all hosts, no unknown ones, whole bodies, forwarded headers."""
        for path, size in SIZES.items():
            status, _, body = get(self.port, path)
            if status != 200 or len(body) != size:
                raise Invalid(f"{self.name}: {path} gives {status} with {len(body)} bytes")
        for n in range(0, HOSTS, 37):
            if get(self.port, "/0", f"H{n}.example.com:80")[0] != 200:
                raise Invalid(f"{self.name}: host h{n}.example.com isn't served")
        if get(self.port, "/0", "unknown.example.com")[0] == 200:
            raise Invalid(f"{self.name}: an unknown host is served")
        _, _, echo = get(self.port, "/echo")
        seen = echo.decode(errors="replace").lower()
        for wanted in ("get /echo http/1.1\r\n", "host: h0.example.com\r\n", "x-forwarded-for: 127.0.0.1\r\n"):
            if wanted not in seen:
                raise Invalid(f"{self.name}: the backend didn't get {wanted.strip()!r}")
