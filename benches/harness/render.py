"""Fills in the templates of benches/peers: @NAME@ and blocks between `#@ for pool|backend|host` and `#@ end`."""

import re

HOSTS = 1000  # src/job.rs and peers/wrk.lua have the same number
POOLS = 10


def render(template, values, backend_ports):
    """The text of `template` with every block repeated and every @NAME@ of `values` replaced."""
    hosts = [f"h{n}.example.com" for n in range(HOSTS)]

    def sites(pool, scheme="http", port="PORT"):
        return ", ".join(f"{scheme}://{host}:{values[port]}" for host in hosts[pool::POOLS])

    loops = {
        "backend": [{"BACKEND": n + 1, "BACKEND_PORT": port} for n, port in enumerate(backend_ports)],
        "pool": [{"POOL": n, "SITES": sites(n), "SECURE_SITES": sites(n, "https", "TLS_PORT")} for n in range(POOLS)],
        "host": [{"HOST": host, "N": n, "POOL": n % POOLS} for n, host in enumerate(hosts)],
    }
    lines = iter(template.splitlines())
    text = "".join(_block(lines, loops, values))
    left = re.search(r"@[A-Z_]+@", text)
    if left:
        raise ValueError(f"template names {left[0]}, which has no value")
    return text


def _block(lines, loops, values):
    """The lines up to `#@ end` or the end of the text, filled in."""
    body = []  # lines, or (loop name, its lines)
    for line in lines:
        words = line.split()
        if words[:2] == ["#@", "for"]:
            body.append((words[2], list(_inner(lines))))
        else:
            body.append(line)
    for part in body:
        if isinstance(part, str):
            yield re.sub(r"@([A-Z_]+)@", lambda name: str(values.get(name[1], name[0])), part) + "\n"
        else:
            loop, inner = part
            for more in loops[loop]:
                yield from _block(iter(inner), loops, values | more)


def _inner(lines):
    """The lines of a block whose `for` has been read, without its `end`; blocks within it stay whole."""
    depth = 0
    for line in lines:
        words = line.split()
        if words[:2] == ["#@", "end"]:
            if depth == 0:
                return
            depth -= 1
        elif words[:2] == ["#@", "for"]:
            depth += 1
        yield line
    raise ValueError("a block of the template has no `#@ end`")
