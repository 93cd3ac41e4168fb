"""A machine's word on which colours look real, before any person is asked: `python -m platform.jury [EXPERIMENT]`."""

import sys
from collections.abc import Sequence

from db.errors import run_command
from platform.running.progress import open_console, say_on
from platform.running.verdict import judge
from platform.tables.experiment import open_experiment, parser_of_results


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of_results("jury", "Let a machine judge which models' pictures look real; its marks are recorded.")
    options = parser.parse_args(arguments)

    def body() -> int:
        engine, experiment = open_experiment(options.database, options.experiment)
        judge(engine, experiment, say_on(open_console()))
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
