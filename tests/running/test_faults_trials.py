"""Trials whose worker is killed or out of memory, for real: tried again, then failed, and all else goes on."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from db.schema import Report, Trial
from db.store import open_database, read_session
from platform.data.datasets import Dataset, load_dataset
from platform.running.cluster import ray_started
from platform.running.workers import set_ray_variables
from tests.faults import count
from tests.running.scripted_sweep import EPOCHS, rates, script, sweep, sweep_config, trials_by_arm

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]  # warnings are Ray's own

FREE_UNTIL_KILLED_BYTES = 2 * 2**30  # that much more than is in use now, and Ray's memory monitor kills
HOG_BYTES = 4 * 2**30


def memory() -> tuple[int, int]:
    """All of this machine's memory, and what is available of it, in bytes."""
    kibibytes = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
    return int(kibibytes["MemTotal:"]) * 1024, int(kibibytes["MemAvailable:"]) * 1024


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    total, available = memory()
    if available < 2 * HOG_BYTES:
        pytest.skip("LITTLE MEMORY: a trial that runs out of it was not tried, as it would disturb this machine.")
    with pytest.MonkeyPatch.context() as patch:
        threshold = (total - available + FREE_UNTIL_KILLED_BYTES) / total
        patch.setenv("RAY_memory_usage_threshold", f"{threshold:.4f}")
        patch.setenv("RAY_memory_monitor_refresh_ms", "50")
        set_ray_variables(os.environ)
        with ray_started("local", print):
            yield


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(tmp_path / "sweep.sqlite")
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(["photos"], train_images=20, validation_images=10, say=lambda line: None)


def test_a_trial_without_memory_or_worker_is_retried_then_failed_and_the_rest_goes_on(
    ray_here: None, data: Dataset, engine: Engine, tmp_path: Path
) -> None:
    follow, deaths, bytes_wanted = script(), tmp_path / "deaths", HOG_BYTES
    deaths.mkdir()

    def trainable(config: dict[str, Any]) -> None:
        import os
        import signal
        import tempfile
        import time

        arm, number = config["trial"].arm, config["trial"].number

        def about_to_die_of(cause: str) -> None:
            tempfile.mkstemp(prefix=f"{cause}, {arm} {number}: ", dir=deaths)

        def loss(epoch: int) -> float:
            if epoch == 2 and number == 1 and arm == "rebalanced":
                about_to_die_of("memory")
                held = []
                for _ in range(bytes_wanted // 2**26):
                    held.append(b"x" * 2**26)
                    time.sleep(0.02)
            if epoch == 3 and number == 2 and (arm == "rebalanced" or not list(deaths.glob("signal, regression *"))):
                about_to_die_of("signal")
                os.kill(os.getpid(), signal.SIGKILL)
            return 1 / epoch

        follow(config, loss)

    config = sweep_config(rates(0.1, 0.2, 0.3), failures={"max_retries": 1})
    recorder = sweep(config, trainable, data, engine, tmp_path)
    assert recorder.problems == []
    found = trials_by_arm(engine)
    assert found.pop("tilted") == found["rebalanced"]  # whose training it shares
    assert found == {
        "regression": [("finished", EPOCHS)] * 3,
        "rebalanced": [("failed", 1), ("failed", 2), ("finished", EPOCHS)],
    }
    with read_session(engine) as session:
        reasons = session.scalars(select(Trial.failure_reason).where(Trial.status == "failed").order_by(Trial.id)).all()
        epochs = session.execute(select(Report.trial_id, Report.epoch)).all()
    assert len(reasons) == 4
    for reason in reasons:
        assert ("low on memory" in str(reason)) != ("its worker died" in str(reason))
    assert len(set(epochs)) == len(epochs)
    died = Counter(path.name.partition(":")[0] for path in deaths.iterdir())
    assert died == {"memory, rebalanced 1": 2, "signal, rebalanced 2": 2, "signal, regression 2": 1}
    ends = Counter(status for trials in found.values() for status, _ in trials)
    count(
        "a trial's worker killed, or out of memory (Ray's memory monitor)",
        f"{died.total()} times in {len(died)} trials",
        f"{6 - ends.total()} of 6 trials; {ends['failed']} failed as configured, {ends['finished']} finished",
        "tests/running/test_faults_trials.py",
    )
