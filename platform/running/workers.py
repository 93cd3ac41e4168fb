"""What a Ray worker needs before it can import HueJury. Pure: Ray itself is not imported."""

import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

PENDING_VARIABLE = "TUNE_MAX_PENDING_TRIALS_PG"  # of which a sweep sets the value as it starts
CHECKOUT = Path(__file__).resolve().parent.parent.parent

# Where Python runs on glibc: it returns the memory of every batch to the system at once and takes it anew for the next,
# which costs a tenth of a training step. The thresholds hold for the process's first arena alone, and each trial of a
# worker runs in a thread of its own, which would get another: so there is only one.
KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
}

# What Ray and Ray Tune do here is the sweep's business. They read it from the environment.
RAY_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the database has it all
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # nothing reads the state that Ray would write again and again
    "RAY_AIR_NEW_OUTPUT": "0",  # the old output is silent when told to be
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the recorder says them
}


def set_ray_variables(environment: MutableMapping[str, str]) -> None:
    """Set what a sweep needs of Ray, before Ray is imported. Other variables of Ray Tune, as old profiles have them,
    can end a sweep in its middle and are removed."""
    for name in sorted(environment):
        if name.startswith(("TUNE_", "RAY_AIR_", "RAY_TRAIN_")):
            del environment[name]
    environment.update(RAY_VARIABLES)
    try:
        Path.home()
    except RuntimeError:  # a user without an entry in /etc/passwd, as in containers; Ray cannot even be imported then
        environment["HOME"] = tempfile.gettempdir()


def ray_runtime_env() -> dict[str, Any]:
    """Return the `runtime_env` to give `ray.init`, the same wherever the driver runs.

    A Ray worker is started outside the checkout and finds Python's own `platform`, which is no package. Ray packs
    `py_modules` once (a few dozen kB), unpacks them on each node and puts them on PYTHONPATH before a worker starts,
    so that the worker's first `import platform` is ours, and `platform.system()` answers as ever.

    Why not `working_dir`: it packs the whole checkout, so one large folder of images or results in it stops the
    sweep at Ray's limit of 512 MiB; and inside `ray job submit --working-dir .` it must not be given a second time.
    There `py_modules` adds to what the job has. `excludes` is left out for the same reason: a job may have its own.
    The `.rayignore` files keep byte code, which changes while Ray reads it, out of the two folders.

    Workers keep the driver's current folder at the head of `sys.path`, and on another node need not have one: give
    paths to workers as absolute ones, or better give them the data.
    """
    return {"py_modules": [str(CHECKOUT / "platform"), str(CHECKOUT / "db")], "env_vars": KEEP_FREED_MEMORY}
