"""Real frps with one frpc and one demo application each, to kill, freeze and bring back."""

import http.client
import os
import signal

from harness import process

HOST = "app.test"
CORES = set(range(os.cpu_count() or 1))


class Member:
    """frps `s<number>` with its frpc and its application `app-<number>`; without `tunnel` only the frps."""

    def __init__(self, lab, number, tunnel=True):
        self.lab, self.number, self.name = lab, number, f"s{number}"
        ports = ("CONTROL", "HTTP", "HTTPS", "TCPMUX", "ADMIN", "TUNNEL_FROM", "FRPC_ADMIN", "APP")
        self.env = {f"LAB_{name}": str(process.free_port()) for name in ports}
        self.env |= {"LAB_NAME": self.name, "LAB_USER": f"u{number}", "LAB_TUNNEL_TO": self.env["LAB_TUNNEL_FROM"], "LAB_PLUGIN": ""}
        self.port, self.control = int(self.env["LAB_HTTP"]), process.free_port()
        self.frps = self.frpc = None
        self.start_frps()
        if tunnel:
            app = [lab.tool("demo-app"), "--listen", f"127.0.0.1:{self.env['LAB_APP']}", "--name", f"app-{number}",
                   "--control", f"127.0.0.1:{self.control}"]
            self.app = process.start(app, CORES, self.log("app"))
            self.start_frpc()
            process.wait_until(self.serves, 20, f"{self.name} serving")
            self.tell("/delay?ms=50&jitter=5")
        else:
            process.wait_until(lambda: self.status() == 404, 20, f"{self.name} answering")

    def log(self, who):
        return os.path.join(self.lab.run_dir, f"{self.name}-{who}.log")

    def start_frps(self):
        """Starts its frps, on the ports that it had before."""
        self.frps = self._lab("frps")

    def start_frpc(self):
        """Starts its frpc."""
        self.frpc = self._lab("frpc")

    def _lab(self, program):
        folder = os.path.join(self.lab.root, "frp-lab")
        command = [os.path.join(folder, "bin", "0.71", program), "-c", os.path.join(folder, f"{program}.toml")]
        return process.start(command, CORES, self.log(program), self.env)

    @staticmethod
    def kill(child):
        """SIGKILL, as a crash is."""
        os.killpg(child.pid, signal.SIGKILL)
        process.stop(child)
        child.wait()

    def status(self):
        """What its vhost says to a visitor now; None when nothing."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/", headers={"Host": HOST})
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()

    def serves(self):
        """Whether a visitor that goes straight to it gets 200."""
        return self.status() == 200

    def tell(self, path):
        """Has its application misbehave, or stop doing so."""
        connection = http.client.HTTPConnection("127.0.0.1", self.control, timeout=2)
        try:
            connection.request("POST", path)
            if connection.getresponse().status != 204:
                raise process.Invalid(f"{self.name}: refuses {path}")
        except ConnectionRefusedError:
            raise process.Invalid(f"{self.name}: no control port") from None
        finally:
            connection.close()
