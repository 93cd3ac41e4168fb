"""Serves the survey and the dashboard, each in a process of its own: `python -m survey_app.serve`, or `make survey`.

Participants and readers come by two doors: nothing of the dashboard can be reached from the survey's address, and what
readers do costs participants no time but the processor's, of which they get theirs first. Readers need the token that
is printed with the dashboard's address.
"""

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import quote

from db.errors import UserError, run_command
from db.store import DATABASE_HELP, default_database, open_existing
from survey_app.settings import TOKEN_PARAMETER, TOKEN_VARIABLE, settings

FOLDER = Path(__file__).resolve().parent
DASHBOARD_NICENESS = 10
STOPPING_S = 10.0
TOKEN_BYTES = 24

# What each app's pages need of other libraries. It is imported before a server serves: in the thread of whoever comes
# first it would keep them waiting, and everybody who comes meanwhile.
LIBRARIES = {
    "survey": "scipy.optimize, sqlalchemy.orm",
    "dashboard": "altair, pandas, scipy.stats, skimage.color.colorconv, sqlalchemy.orm, statsmodels.api, torch, "
    "vl_convert",
}

EXAMPLES = """\
examples:
  python -m survey_app.serve                                  both: the survey for everybody, the dashboard for you
  python -m survey_app.serve survey --address 127.0.0.1       the survey alone, behind a proxy on this machine
  python -m survey_app.serve dashboard --dashboard-port 9000  the dashboard alone
  python -m survey_app.serve --dashboard-host lab.example     behind a proxy, by the name that browsers know it by

Readers need the address that is printed, with its token: HUEJURY_DASHBOARD_TOKEN, or else one drawn at each start.
Ctrl-C stops both. If one of them ends by itself, the other is stopped too, and the exit status is 1.
"""


@dataclass(frozen=True)
class Door:
    """One of the two servers."""

    name: str
    folder: Path  # of its app.py and its settings
    address: str  # that it listens on
    port: int
    hosts: tuple[str, ...] = ()  # by which browsers reach it, besides those of its settings
    token: str = ""  # that its address ends in

    @property
    def url(self) -> str:
        host = "localhost" if self.address in ("", "0.0.0.0", "::") else self.address
        token = f"/?{TOKEN_PARAMETER}={quote(self.token)}" if self.token else ""
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{token}"

    def command(self) -> list[str]:
        """Flags go before whatever else gives Streamlit its settings: files and the environment's variables."""
        options = {**settings(self.folder), "server.headless": True, "server.address": self.address}
        options |= {"server.port": self.port, "logger.hideWelcomeMessage": True}
        if allowed := options.get("server.allowedHosts"):
            options["server.allowedHosts"] = [*cast(list[str], allowed), *self.hosts]
        flags = [
            f"--{name}={str(value).lower() if isinstance(value, bool) else value}"
            for name, given in options.items()
            for value in (given if isinstance(given, list) else [given])
        ]
        start = f"import {LIBRARIES[self.name]}; from streamlit.web.cli import main; main()"
        return [sys.executable, "-c", start, "run", str(self.folder / "app.py"), *flags]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    token = "" if options.no_token else os.environ.get(TOKEN_VARIABLE) or secrets.token_urlsafe(TOKEN_BYTES)
    hosts = (*options.dashboard_host, options.dashboard_address)
    doors = [
        Door("survey", FOLDER / "participants", options.address, options.port),
        Door("dashboard", FOLDER / "dashboard", options.dashboard_address, options.dashboard_port, hosts, token),
    ]
    return run_command(lambda: serve([door for door in doors if options.only in (None, door.name)], options.database))


def serve(doors: Sequence[Door], database: str) -> int:
    """Start the servers, and stop them all when one ends (1), or on Ctrl-C or SIGTERM (0).

    database: a path is one from this process's folder, whatever folder the servers run in. Raises UserError.
    """
    for door in doors:
        _check_port(door)
    engine = open_existing(database)
    engine.dispose()
    environment = {**os.environ, "HUEJURY_DATABASE": engine.url.render_as_string(hide_password=False)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    processes: dict[Door, subprocess.Popen[bytes]] = {}
    try:
        for door in doors:
            # Other users of this machine see commands, but no environments.
            process = processes[door] = subprocess.Popen(
                door.command(), env={**environment, TOKEN_VARIABLE: door.token}, cwd=FOLDER.parent
            )
            if door.name == "dashboard" and hasattr(os, "setpriority"):  # not on Windows
                os.setpriority(os.PRIO_PROCESS, process.pid, DASHBOARD_NICENESS)
        awaited = list(doors)
        while True:
            for door in [door for door in awaited if _answers(door)]:
                print(f"The {door.name} is at {door.url}", flush=True)
                awaited.remove(door)
            for door, process in processes.items():
                if (status := process.poll()) is not None:
                    others = "; the other server is stopped too" if len(doors) > 1 else ""
                    print(f"The {door.name}'s server has ended with status {status}{others}.", file=sys.stderr)
                    return 1
            time.sleep(0.2)
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
        return 0
    finally:
        _stop(list(processes.values()))


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(STOPPING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _check_port(door: Door) -> None:
    family = socket.AF_INET6 if ":" in door.address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((door.address, door.port))
        except (OSError, OverflowError) as error:
            option = "--dashboard-port" if door.name == "dashboard" else "--port"
            raise UserError(
                f"The {door.name} cannot listen on {door.address}:{door.port} ({error}); stop what does, or give "
                f"another {option}."
            ) from error


def _answers(door: Door) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(door.address, door.address)
    try:
        with socket.create_connection((host, door.port), timeout=0.2):
            return True
    except OSError:
        return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m survey_app.serve",
        description="Serve the survey to participants and the dashboard to readers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("only", nargs="?", choices=("survey", "dashboard"), help="one of them alone (default: both)")
    parser.add_argument(
        "--address", default="0.0.0.0", help="the survey's (default: %(default)s, all of this machine's)"
    )
    parser.add_argument("--port", type=int, default=8501, help="the survey's (default: %(default)s)")
    parser.add_argument(
        "--dashboard-address", default="127.0.0.1", help="default: %(default)s, for browsers on this machine alone"
    )
    parser.add_argument("--dashboard-port", type=int, default=8502, help="default: %(default)s")
    parser.add_argument(
        "--dashboard-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name or address by which browsers reach the dashboard, besides localhost; may be given several times",
    )
    parser.add_argument(
        "--no-token", action="store_true", help="let in whoever reaches the dashboard: for a proxy that authenticates"
    )
    parser.add_argument("--database", default=default_database(), help=DATABASE_HELP)
    return parser


if __name__ == "__main__":
    sys.exit(main())
