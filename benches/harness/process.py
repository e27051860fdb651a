"""Children that never outlive this process: each leads its own group, and dies with us even when we are killed."""

import atexit
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import time

PROXY_CORES = {0}
LOAD_CORES = {1}
DESCRIPTORS = 19_500  # 9,000 idle connections, twice: haproxy wants two per connection before it starts
_running = []


def prepare():
    """Puts this process on the load core, raises its descriptor limit, and makes signals end it in the ordinary way."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < DESCRIPTORS:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        except (ValueError, OSError):
            raise SystemExit(f"compare: may open only {hard} files, needs {DESCRIPTORS}: raise the hard limit") from None
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    os.sched_setaffinity(0, LOAD_CORES)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have us ignore it
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: (_ for _ in ()).throw(SystemExit("stopped by a signal")))
    atexit.register(stop_all)


def start(command, cores, log=None, env=None, stdout=None):
    """Starts `command` on `cores`. Its messages go to the file `log`."""
    if shutil.which("setpriv"):
        command = ["setpriv", "--pdeathsig", "TERM", *command]
    errors = open(log, "ab") if log else subprocess.DEVNULL
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # inherited; cheaper than a taskset in front, which start-up times would contain
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout or errors, stderr=errors,
            env=os.environ | (env or {}), start_new_session=True)
    finally:
        os.sched_setaffinity(0, ours)
        if log:
            errors.close()
    _running.append(child)
    return child


def run_json(command, cores, seconds):
    """Runs a load generator that prints one line of JSON; raises with its message when it fails or overstays."""
    child = start(command, cores, stdout=subprocess.PIPE, log=os.devnull)
    try:
        out, _ = child.communicate(timeout=seconds + 15)
    except subprocess.TimeoutExpired:
        raise Invalid(f"{os.path.basename(command[0])} didn't end") from None
    finally:
        stop(child)
    lines = out.decode(errors="replace").strip().splitlines()
    if child.returncode != 0 or not lines:
        raise Invalid(f"{os.path.basename(command[0])}: exit {child.returncode}: {' '.join(lines[-3:])}")
    return json.loads(lines[-1])


def stop(child):
    """Ends `child` and its group: politely, then after two seconds by force."""
    if child in _running:
        _running.remove(child)
    if child.poll() is not None:
        return  # gone already; its number may be another's by now
    for number, wait in ((signal.SIGTERM, 2), (signal.SIGKILL, 5)):
        os.killpg(child.pid, number)
        try:
            child.wait(wait)
            break
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(child.pid, signal.SIGKILL)  # workers whose master is gone
    except ProcessLookupError:
        pass


def stop_all():
    """Ends every child that still runs."""
    for child in list(_running):
        stop(child)


def free_port():
    """A loopback port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, seconds, what):
    """Waits for `condition()` to be true, at most `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Invalid(f"{what}: not within {seconds} s")
        time.sleep(0.001)


class Invalid(Exception):
    """A measurement that must not be reported as one."""
