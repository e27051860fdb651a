"""benches/tls-scan: both serve the same certificate with their own defaults; every finding that differs is shown."""

import argparse
import http.server
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading

from harness import install, process

BENCHES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAME = "app.example.com"
# How bad testssl.sh calls a finding. WARN says that it couldn't look.
RANKS = {"OK": 0, "INFO": 0, "WARN": 1, "LOW": 2, "MEDIUM": 3, "HIGH": 4, "CRITICAL": 5, "FATAL": 6}
# Of the certificate (the same for both), of the clock, of the scan itself; what the application says; sums of the other findings.
APART = ("cert", "scanTime", "engine_problem", "clock", "HTTP_", "banner_", "final_score", "overall_grade", "grade_cap", "service", "optimal_proto")


def main():
    parser = argparse.ArgumentParser(
        prog="benches/tls-scan", description="Scans the gateway and caddy with testssl.sh, on loopback; about four minutes. "
        "Exit code: 1 when a finding is worse at the gateway. FRP_GATEWAY_BIN: the gateway to scan instead of building it.")
    parser.add_argument("--bin", metavar="FOLDER", help="where caddy is, or is built; default: beside the gateway")
    parser.add_argument("--all", action="store_true", help="show equal findings too")
    args = parser.parse_args()
    root = os.path.dirname(BENCHES)
    install.debian(["testssl", "openssl"])
    target = None if os.environ.get("FRP_GATEWAY_BIN") and args.bin else install.target_dir(root)
    gateway = os.environ.get("FRP_GATEWAY_BIN") or os.path.join(target, "release", "frp-gateway")
    if not os.environ.get("FRP_GATEWAY_BIN"):
        install.cargo(root, "frp-gateway")
    folder = args.bin or os.path.join(target, "compare", "bin")
    os.makedirs(folder, exist_ok=True)
    caddy = os.path.join(folder, "caddy")
    install.caddy(os.path.join(BENCHES, "caddy"), caddy)
    process.prepare()
    with tempfile.TemporaryDirectory(prefix="frp-gateway-scan-") as work:
        try:
            found = {name: scan(work, name, start(work)) for name, start in (
                ("caddy", lambda work: start_caddy(work, caddy)), ("frp-gateway", lambda work: start_gateway(work, gateway)))}
        finally:
            process.stop_all()
    worse = report(found["frp-gateway"], found["caddy"], args.all)
    if worse:
        raise SystemExit(f"tls-scan: worse than caddy: {', '.join(worse)}")
    print("tls-scan: nothing is worse than at caddy")


class App(http.server.BaseHTTPRequestHandler):
    """The application behind both: an empty page."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """The same answer to everything."""
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        """Nothing to say."""


def application():
    """Its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), App)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def start_gateway(work, binary):
    """An https listener that says nothing but its certificate; its port."""
    port, names = process.free_port(), certificate(work)
    path = os.path.join(work, "gateway.yaml")
    with open(path, "w") as file:
        file.write(f"""admin: {{ listen: "127.0.0.1:{process.free_port()}" }}
frps:
  - {{ name: a, host: 127.0.0.1, vhost_http_port: {application()} }}
listeners:
  - {{ name: secure, bind: "127.0.0.1:{port}", protocol: https, tls: {{ certificates: [ {{ cert: "{names['CERT']}", key: "{names['KEY']}" }} ] }} }}
pools:
  - {{ name: app, frps: [a] }}
""")
    process.start([binary, "run", "-c", path], {0}, log=os.path.join(work, "gateway.log"))
    return port


def start_caddy(work, binary):
    """A site that says nothing but its certificate; its port."""
    port, names = process.free_port(), certificate(work)
    path = os.path.join(work, "Caddyfile")
    with open(path, "w") as file:
        file.write(f"""{{
	admin off
	auto_https disable_redirects
	persist_config off
	skip_install_trust
	https_port {port}
	servers {{
		protocols h1 h2
	}}
}}
https://{NAME} {{
	bind 127.0.0.1
	tls {names['CERT']} {names['KEY']}
	reverse_proxy 127.0.0.1:{application()}
}}
""")
    environment = {"HOME": work, "XDG_DATA_HOME": work, "XDG_CONFIG_HOME": work}
    process.start([binary, "run", "--adapter", "caddyfile", "--config", path], {0}, log=os.path.join(work, "caddy.log"), env=environment)
    return port


def certificate(work):
    """The certificate of both."""
    return install.certificate(work)


def serves(port):
    """Whether somebody accepts there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def scan(work, name, port):
    """Every finding of testssl.sh by its id: severity and words."""
    process.wait_until(lambda: serves(port), 10, f"{name} to listen")
    path = os.path.join(work, f"{name}.json")
    command = [shutil.which("testssl"), "--quiet", "--color", "0", "--warnings", "batch", "--ip", "127.0.0.1", "--jsonfile", path,
               "--add-ca", os.path.join(work, "tls.pem"), f"https://{NAME}:{port}/"]
    print(f"testssl.sh at {name} …", flush=True)
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=600, check=False)
    with open(path) as file:
        findings = json.load(file)
    found = {}
    for finding in findings:
        if not finding["id"].startswith(APART):
            found[finding["id"]] = (finding["severity"], finding["finding"])
    if len(found) < 50:
        raise SystemExit(f"tls-scan: testssl.sh made only {len(found)} findings at {name}")
    return found


def report(ours, theirs, everything):
    """Prints a table; the ids of what is worse at ours."""
    worse = []
    print("\n| finding | frp-gateway | caddy |\n|---|---|---|")
    for id in sorted(ours.keys() | theirs.keys()):
        our, their = ours.get(id), theirs.get(id)
        if our and RANKS.get(our[0], 9) > RANKS.get(their[0] if their else "OK", 9):
            worse.append(id)
        if everything or our != their:
            print(f"| {id}{' **worse**' if id in worse else ''} | {show(our)} | {show(their)} |")
    counts = [sum(RANKS.get(severity, 9) > 1 for severity, _ in found.values()) for found in (ours, theirs)]
    print(f"\n{len(ours)} findings at frp-gateway, {counts[0]} of them faults; {len(theirs)} at caddy, {counts[1]} of them faults\n")
    return worse


def show(finding):
    """A finding in a cell."""
    if finding is None:
        return "–"
    return f"{finding[0]}: {finding[1][:110]}".replace("|", "/")


if __name__ == "__main__":
    main()
