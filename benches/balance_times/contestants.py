"""Who stands before the fleet: the gateway with the pool keys under test, haproxy and nginx with their counterparts."""

import os

from harness import process
from harness.measure import get
from harness.process import Invalid

from .fleet import CORES, HOST

HAPROXY = """\
global
    nbthread 1
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend web
    bind 127.0.0.1:{port}
    default_backend shop
backend shop
    {keys}
{servers}
"""

NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
user {user};
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream shop {{
        {method}
{servers}
        keepalive 128;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            {keys}
            proxy_pass http://shop;
        }}
    }}
}}
"""


def gateway(keys):
    """The gateway; `keys` are those of its pool."""
    def command(bench, members, port, folder):
        fleet = "\n".join(f"  - {{ name: {one.name}, host: 127.0.0.1, vhost_http_port: {one.port} }}" for one in members)
        names = ", ".join(one.name for one in members)
        path = write(folder, "gateway.yaml", f"""\
admin: {{ listen: "127.0.0.1:{process.free_port()}" }}
runtime: {{ workers: 1 }}
frps:
{fleet}
listeners:
  - {{ name: web, bind: "127.0.0.1:{port}", protocol: http }}
pools:
  - {{ name: shop, frps: [{names}], {keys} }}
routes:
  - {{ name: shop, match: {{ host: {HOST} }}, pools: [shop] }}
""")
        return [bench.gateway, "run", "-c", path]
    return keys, command


def haproxy(keys, check=""):
    """haproxy; `keys` are lines of its backend, `check` ends each of its server lines."""
    def command(bench, members, port, folder):
        servers = "\n".join(f"    server {one.name} 127.0.0.1:{one.port} {check}" for one in members)
        path = write(folder, "haproxy.cfg", HAPROXY.format(port=port, keys=keys.replace("; ", "\n    "), servers=servers))
        return ["haproxy", "-db", "-f", path]
    return f"{keys}{' · server … ' + check if check else ''}", command


def nginx(method, keys="", server=""):
    """nginx; `method` goes into its upstream, `keys` into its location, `server` ends each of its server lines."""
    def command(bench, members, port, folder):
        servers = "\n".join(f"        server 127.0.0.1:{one.port} {server};" for one in members)
        user = "root" if os.getuid() == 0 else "nobody"
        path = write(folder, "nginx.conf", NGINX.format(port=port, folder=folder, user=user, method=method, keys=keys, servers=servers))
        return ["nginx", "-p", folder, "-e", "stderr", "-c", path]
    return " ".join(word for word in (method, keys, server and f"· server … {server};") if word), command


def write(folder, name, text):
    """Puts `text` into a file and gives its path."""
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


class Contestant:
    """One running balancer, named as in the tables."""

    def __init__(self, bench, name, recipe, members):
        self.name, (self.keys, command) = name, recipe
        self.port = process.free_port()
        folder = os.path.join(bench.run_dir, f"{name.replace(' ', '-').replace(',', '')}-{self.port}")
        os.makedirs(folder)
        self.log = os.path.join(folder, "log")
        self.child = process.start(command(bench, members, self.port, folder), CORES, self.log, {"HOME": folder})
        process.wait_until(self.serves, 20, f"{name} serving")

    def serves(self):
        """Whether it answers at all: from its fleet, with whatever status."""
        if self.child.poll() is not None:
            with open(self.log, errors="replace") as file:
                raise Invalid(f"{self.name} ended with {self.child.returncode}: {' | '.join(file.read().splitlines()[-4:])}")
        try:
            return get(self.port, "/", HOST)[0] > 0
        except OSError:
            return False

    def stop(self):
        """Ends it."""
        process.stop(self.child)
