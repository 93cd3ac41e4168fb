"""The database's disk full under a running sweep: `make faults`. Votes on a full disk: test_faults_database.py."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from db.schema import Arm, Experiment, Report, Trial
from db.store import open_database, read_session
from platform.running.config import read_config
from platform.running.plan import plan_trials
from tests.faults import UNSHARE, count
from tests.processes import check_integrity
from tests.running.test_sweep import CHECKOUT, CONFIG

EPOCHS = 6

# Runs where /mnt is a disk of its own. The first sweep finds it full after its first trial and has room again after the
# third; from the fifth on it stays full, and the sweep, whose patience is shortened, ends. Then there is room.
ON_A_SMALL_DISK = """
import json, shutil, subprocess, sys
from pathlib import Path

config, storage = sys.argv[1:]
disk = Path("/mnt")
filler = disk / "filler"
SWEEP = "import sys; from platform.running import recorder; from platform.sweep import main; "
SWEEP += "recorder.RETRY_AFTER_S, recorder.LAST_RETRIES_S = 0.2, 3; sys.exit(main())"

def run(*arguments):
    command = [sys.executable, "-c", SWEEP, *arguments, "--database", str(disk / "d.sqlite"), "--storage", storage]
    output = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sweep:
        for line in sweep.stdout:
            output += line
            if line.startswith(("[1/", "[5/")):
                filler.write_bytes(bytes(shutil.disk_usage(disk).free))
            if line.startswith("[3/"):
                filler.unlink()
    return sweep.returncode, output

done = [run(config)]
filler.unlink()
done.append(run("--resume", "tiny"))
shutil.copytree(disk, Path(storage) / "disk")
print(json.dumps(done))
"""


def test_a_full_disk_under_a_sweep_loses_no_epoch(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("NO unshare: a full disk was not tried, as this machine cannot mount a small one for a test.")
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.replace(", 1e30]", "]").replace("epochs: 3", f"epochs: {EPOCHS}"))
    storage = tmp_path / "s"
    mount = 'mount -t tmpfs -o size=4m tmpfs /mnt || exit 77; exec "$@"'
    command = [*UNSHARE, "sh", "-c", mount, "sh", sys.executable, "-c", ON_A_SMALL_DISK, str(config), str(storage)]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    if ran.returncode in (1, 77) and "Traceback" not in ran.stderr:
        pytest.skip(f"NO SMALL DISK: a full disk was not tried, as this machine mounts none ({ran.stderr.strip()}).")
    assert ran.returncode == 0, ran.stderr
    (status, output), (status_again, output_again) = json.loads(ran.stdout.splitlines()[-1])
    assert status == 1, output
    # Twice meanwhile, and at the end.
    assert output.count("The disk of the database /mnt/d.sqlite is full") == 3, output
    assert "Traceback" not in output
    assert "python -m platform.sweep --resume tiny" in output.splitlines()[-1]
    assert status_again == 0, output_again

    planned = list(plan_trials(read_config(config, []).config))
    engine = open_database(storage / "disk" / "d.sqlite")
    check_integrity(engine)
    with read_session(engine) as session:
        assert session.scalars(select(Experiment.status)).one() == "finished"
        of_arms = select(Trial).join(Arm, Arm.id == Trial.arm_id).where(~Arm.baseline)
        assert [trial.status for trial in session.scalars(of_arms)] == ["finished"] * len(planned)
        epochs = session.execute(select(Report.trial_id, Report.epoch).where(Report.epoch > 0)).all()
    engine.dispose()
    assert len(epochs) == len(set(epochs)) == EPOCHS * len(planned)
    count(
        "the database's disk full under a sweep",
        f"{output.count('Until then results wait in memory')} times in a sweep, the last beyond its end",
        f"{EPOCHS * len(planned) - len(epochs)} of {EPOCHS * len(planned)} epochs",
        "tests/running/faults_sweep_disk.py",
    )
