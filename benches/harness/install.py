"""Gets the contestants: Debian packages, caddy as a Go module, the rest from this workspace."""

import json
import os
import shutil
import subprocess
import sys

PACKAGES = {"haproxy": "haproxy", "nginx": "nginx-light", "wrk": "wrk", "strace": "strace", "h2load": "nghttp2-client", "openssl": "openssl"}


def run(command, cwd=None, env=None):
    """Runs `command` with its output on our stderr; ends us with a plain message if it fails."""
    print("$", " ".join(command), file=sys.stderr, flush=True)
    if subprocess.run(command, cwd=cwd, env=os.environ | (env or {}), stdout=sys.stderr).returncode:
        raise SystemExit(f"compare: this failed: {' '.join(command)}")


def output(command, cwd=None, env=None):
    """What `command` prints on either stream, or '' if it fails."""
    try:
        done = subprocess.run(command, cwd=cwd, env=os.environ | (env or {}), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace")
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def debian(names):
    """Installs what is missing of the commands `names`."""
    missing = sorted({PACKAGES[name] for name in names if not shutil.which(name)})
    if not missing:
        return
    if os.getuid() != 0 or not shutil.which("apt-get"):
        raise SystemExit(f"compare: install these first: {' '.join(missing)}")
    # RUNLEVEL=1: don't start the packages' services, they would be company on the cores.
    env = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if subprocess.run(command, env=os.environ | env, stdout=sys.stderr).returncode:
        run(["apt-get", "update"])
        run(command, env=env)


def certificate(folder):
    """A P-256 certificate for all hosts, and the templates' names of its files."""
    names = {name: os.path.join(folder, file) for name, file in (("CERT", "tls.pem"), ("KEY", "tls.key"), ("BOTH", "both.pem"))}
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
               "/CN=example.com", "-addext", "subjectAltName=DNS:*.example.com,DNS:example.com", "-keyout", names["KEY"], "-out", names["CERT"]]
    if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        raise SystemExit("compare: openssl makes no certificate")
    with open(names["BOTH"], "w") as both:
        for part in ("CERT", "KEY"):
            with open(names[part]) as file:
                both.write(file.read())
    os.chmod(names["KEY"], 0o644)  # nginx's workers may run as another user
    return names


def rust_env(root):
    """What cargo needs in its environment: the exact release of the pinned toolchain, where only that is installed."""
    if output(["cargo", "--version"], root):
        return {}
    with open(os.path.join(root, "rust-toolchain.toml")) as file:
        channel = next((line.split('"')[1] for line in file if line.startswith("channel")), "stable")
    for name in (line.split()[0] for line in output(["rustup", "toolchain", "list"]).splitlines() if line):
        if name.startswith(channel):
            return {"RUSTUP_TOOLCHAIN": name}
    raise SystemExit(f"compare: no Rust {channel} here")


def target_dir(root):
    """Where cargo puts what it builds."""
    env = os.environ | rust_env(root)
    done = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=root, env=env, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit("compare: cargo can't read the workspace")
    return json.loads(done.stdout)["target_directory"]


def cargo(root, package, *more):
    """An optimised build. One package at a time: together their dependencies' features would mix."""
    run(["cargo", "build", "--release", "-p", package, *more], root, rust_env(root))


def caddy(folder, binary):
    """caddy from the module in benches/caddy; quick when nothing changed."""
    run(["go", "build", "-trimpath", "-o", binary, "github.com/caddyserver/caddy/v2/cmd/caddy"], folder)
