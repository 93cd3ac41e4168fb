"""A real PostgreSQL server for tests, in a temporary folder: reached through a socket there, by nobody else."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)


def binaries() -> Path:
    """The folder of PostgreSQL's programs; without them the test is skipped, or fails where HUEJURY_NEED_POSTGRES is
    set."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    if DEBIAN:
        return DEBIAN[0]
    message = "NO POSTGRESQL: nothing was tried on it. Install it (Debian: apt-get install postgresql)."
    if os.environ.get("HUEJURY_NEED_POSTGRES"):
        pytest.fail(message)
    pytest.skip(message)


class PostgresServer:
    """PostgreSQL, started. It refuses to run as root, who therefore starts it as postgres or nobody."""

    def __init__(self) -> None:
        self.programs = binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="huejury-pg-"))  # short: a socket's path may have 107 bytes
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            names = [user.pw_name for user in pwd.getpwall()]
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._databases = 0
        command = [str(self.programs / "initdb"), "--pgdata", "data", "--username", "huejury", "--auth", "trust"]
        command += ["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
        made = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, **self._as_user)
        assert made.returncode == 0, made.stderr
        self.start()

    def start(self) -> None:
        # fsync guards against the machine's failure only, which no test brings about.
        command = [str(self.programs / "postgres"), "-D", "data", "-k", str(self.folder)]
        command += ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60"]
        deadline = time.monotonic() + 60
        while True:
            with (self.folder / "log").open("a") as log:
                self.process = subprocess.Popen(
                    command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True, **self._as_user
                )
            while self.process.poll() is None:  # it ends at once where a killed server's processes still run
                with contextlib.suppress(psycopg.OperationalError):
                    psycopg.connect(self._conninfo("postgres")).close()
                    return
                time.sleep(0.05)
            assert time.monotonic() < deadline, (self.folder / "log").read_text()

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://huejury@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """The URL of an empty database of its own."""
        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def kill(self) -> None:
        """As a crash would: kill -9 of the server and, by their own noticing it, its processes."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stop it, whoever is connected, and remove its folder."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        shutil.rmtree(self.folder)

    def _conninfo(self, database: str) -> str:
        return f"user=huejury dbname={database} host={self.folder}"
