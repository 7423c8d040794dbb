"""An sshd of our own on a high port, with keys that are thrown away."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin")
MISSING = "there is no sshd on this machine (openssh-server)" if SSHD is None or shutil.which("ssh") is None else ""


class SshServer:
    """Where it listens, and what leads to it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def command(self, words: str, port: int | None = None) -> tuple[str, ...]:
        """ssh to it, over another port where that leads there; `words` are what the shell at the other side runs."""
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(self.folder / "key"),
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
        }
        chosen = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return ("ssh", "-F", "none", "-p", str(port or self.port), *chosen, f"{getpass.getuser()}@127.0.0.1", words)

    def tamer(self, arguments: str, port: int | None = None) -> tuple[str, ...]:
        """`tamer` at the other side, out of this tree, with folders of its own."""
        folders = " ".join(f"{name}={self.folder}" for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"))
        cache = os.environ.get("XDG_CACHE_HOME", self.folder)
        environment = f"PYTHONPATH={ROOT} OMP_NUM_THREADS=1 XDG_CACHE_HOME={cache} {folders}"
        return self.command(f"{environment} {sys.executable} -m tamer_tui.cli {arguments}", port)


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """Raises OSError, subprocess.CalledProcessError where this system will not have one."""
    assert SSHD is not None
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host_key'}\nAuthorizedKeysFile {folder / 'key.pub'}\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdout=log, stderr=log)
    server = SshServer(folder, port)
    try:
        deadline = time.monotonic() + 20
        while subprocess.run(server.command("true"), capture_output=True).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                raise OSError((folder / "sshd.log").read_text())
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait()
