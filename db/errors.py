"""Errors that meet the person who can mend them, and how a command tells of them."""

import difflib
import io
import sys
from collections.abc import Callable, Sequence


class UserError(Exception):
    """Something is wrong that its reader can mend; the message is one sentence with what, where, and what to do."""


def nearest(found: object, choices: Sequence[str]) -> str:
    """The end of a sentence about a name that is unknown: which one was meant, if any is like it."""
    close = difflib.get_close_matches(found, choices, n=1) if isinstance(found, str) else []
    return f"; did you mean `{close[0]}`?" if close else ""


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
