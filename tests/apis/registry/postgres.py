"""A PostgreSQL cluster of the tests' own, in a temporary folder on a free port."""

import glob
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path


def programs():
    """Folder of initdb and pg_ctl, the newest there is, or None."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda one: int(one.split("/")[-2]))
    return Path(folders[-1]) if folders else None


class Cluster:
    """Started when made; `url` is where it is."""

    def __init__(self) -> None:
        self._bin = programs()
        self._made = 0
        # Not in pytest's folder, which only its owner may enter: PostgreSQL does not run as root.
        self._folder = Path(tempfile.mkdtemp(prefix="lodestream-postgres-"))
        self._data = self._folder / "data"
        self._as = []
        if os.geteuid() == 0:
            os.chown(self._folder, 65534, 65534)
            self._as = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run("initdb", "-A", "trust", "-U", "registry", "-E", "UTF8", "--no-sync")
        self.start()
        self.url = f"postgresql://registry@127.0.0.1:{self.port}/postgres"

    def database(self) -> str:
        """URL of a new, empty database."""
        import psycopg

        self._made += 1
        name = f"made_{self._made}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url.replace("/postgres", f"/{name}")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=30"
        self._run("pg_ctl", "-w", "-o", options, "-l", str(self._data / "log"), "start")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def close(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._bin / program), "-D", str(self._data), *arguments]
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )  # fmt: skip
