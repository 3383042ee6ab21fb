"""cluster.yaml: what Ray's launcher accepts, with the three kinds of nodes that the stages need.

.venv/bin/python -m pytest tests/test_cluster_yaml.py
"""

import json
import re
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def cluster() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture(scope="module")
def types(cluster) -> dict:
    return cluster["available_node_types"]


def is_spot(node_type: dict) -> bool:
    return node_type["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}


def test_matches_the_schema_of_this_ray(cluster):
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)


def test_ray_itself_accepts_it_with_its_defaults(cluster):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(cluster)
    validate_config(prepared)
    # None of the launcher's own commands, which would install another Ray, slipped in.
    for commands in ("head_setup_commands", "worker_setup_commands"):
        assert prepared[commands] == cluster[commands]


def test_the_head_is_on_demand_and_does_no_work(cluster, types):
    head = types[cluster["head_node_type"]]
    assert not is_spot(head)
    assert head["resources"] == {"CPU": 0}


def test_cpu_workers_scale_on_demand(cluster, types):
    (cpu,) = (
        node_type
        for name, node_type in types.items()
        if name != cluster["head_node_type"] and not node_type["resources"].get("GPU")
    )
    assert not is_spot(cpu)
    assert 0 <= cpu["min_workers"] < cpu["max_workers"] <= cluster["max_workers"]


def test_gpu_workers_scale_from_none_on_spot(cluster, types):
    (gpu,) = (node_type for node_type in types.values() if node_type["resources"].get("GPU"))
    assert is_spot(gpu)
    assert 0 == gpu["min_workers"] < gpu["max_workers"] <= cluster["max_workers"]


def test_every_node_installs_the_environment_for_its_hardware(cluster, types):
    for commands, flag in (
        (cluster["head_setup_commands"], "GPU=0"),
        (cluster["worker_setup_commands"], "GPU=0"),
        (types["gpu"]["worker_setup_commands"], "GPU=1"),
    ):
        assert f"make setup {flag}" in commands[0]


def test_every_node_gets_the_files_that_the_setup_reads(cluster):
    sent = {local for local in cluster["file_mounts"].values() if not local.startswith("~")}
    assert all((ROOT / name).is_file() for name in sent)
    # pyproject.toml reads the readme, the licence and the version.
    assert {"Makefile", "pyproject.toml", "README.md", "LICENSE", "r2r/__init__.py"} <= sent
    assert {file.name for pattern in ("constraints*.txt", "overrides*.txt") for file in ROOT.glob(pattern)} <= sent


def test_every_node_asks_for_the_token_and_uses_the_environment(cluster):
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token" in cluster[commands][-1]
        assert ".venv/bin/activate" in cluster[commands][-1]


def test_it_names_the_ray_that_is_installed():
    assert f'"ray[default]=={version("ray")}"' in (ROOT / "cluster.yaml").read_text()
    assert f"ray=={version('ray')}" in (ROOT / "constraints.txt").read_text().splitlines()


def test_no_disk_is_shared_and_every_node_may_use_the_bucket(cluster, types):
    text = (ROOT / "cluster.yaml").read_text()
    assert "nfs" not in text and "efs" not in text and "/mnt" not in text
    assert all(one["node_config"]["IamInstanceProfile"] == {"Name": "r2r-node"} for one in types.values())
    # What is left to fill in.
    assert set(re.findall(r"\S*REPLACE\S*", text)) == {"REPLACE,", "REPLACE:", "ami-REPLACE", "s3://REPLACE/runs/demo"}
    page = (ROOT / "docs" / "clusters.md").read_text()
    assert "r2r-node" in page and "iam:PassRole" in page
