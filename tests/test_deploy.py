"""What deploy/ ships, tried as far as it can be without machines, Kubernetes or images."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.autoscaler._private.util import prepare_config, validate_config
from ruamel.yaml import YAML

from platform.sweep import main as sweep
from tests.processes import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
IMAGE_TAG = "huejury:0.1.0"


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(DEPLOY / name)
    return content


def test_ray_up_takes_the_cluster_file() -> None:
    prepared = prepare_config(read("ray-up.yaml"))  # as `ray up` itself does first
    validate_config(prepared)
    assert prepared["available_node_types"]["local.cluster.node"]["min_workers"] == 2


def test_the_rayjobs_command_is_one_of_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read("rayjob.yaml")["spec"]
    python, option, module, *arguments = shlex.split(spec["entrypoint"])
    assert (python, option, module) == ("python", "-m", "platform.sweep")
    monkeypatch.chdir(CHECKOUT)
    assert sweep([*arguments, "--dry-run"]) == 0
    assert "trials in all" in capsys.readouterr().out


def test_the_rayjob_fits_together() -> None:
    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for pod in pods:
        [container] = pod["containers"]
        assert container["image"].endswith(IMAGE_TAG)
        assert container["workingDir"] == "/srv/huejury"
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert any(mount["mountPath"] == "/shared" for mount in container["volumeMounts"])
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert IMAGE_TAG in dockerfile
    assert f"rayproject/ray:{ray.__version__}-py311" in dockerfile
    assert "WORKDIR /srv/huejury" in dockerfile


def test_the_versions_are_those_of_the_project() -> None:
    assert 'version = "0.1.0"' in Path(CHECKOUT / "pyproject.toml").read_text()
