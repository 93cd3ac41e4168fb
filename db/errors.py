"""Errors that meet the person who can mend them, and how a command tells of them."""

import io
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something is wrong that its reader can mend; the message is one sentence with what, where, and what to do."""


def run_command(body: Callable[[], int]) -> int:
    """Run a command's body and return its exit status: 2 and one sentence for a UserError, 130 for Ctrl-C.

    What the output's encoding lacks is shown as "?".
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # tests have others
            stream.reconfigure(errors="replace")
    try:
        return body()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
