"""The results of an experiment so far: `python -m platform.results [EXPERIMENT]`."""

import sys
from collections.abc import Sequence

from rich.console import Console

from db.errors import run_command
from db.store import read_session
from db.sweeps.trials import list_experiments
from platform.tables.experiment import open_experiment, parser_of_results
from platform.tables.outcome import print_results


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser_of_results("results", "Print an experiment's results.").parse_args(arguments)

    def body() -> int:
        engine, experiment = open_experiment(options.database, options.experiment)
        console = Console()
        print_results(engine, experiment, console)
        with read_session(engine) as session:
            others = [summary.name for summary in list_experiments(session) if summary.name != experiment]
        if options.experiment is None and others:
            console.print(f"Other experiments: {', '.join(others)}", markup=False, highlight=False, soft_wrap=True)
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
