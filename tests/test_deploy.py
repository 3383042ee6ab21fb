"""serve.yaml and deploy/: Ray's own readers and KubeRay's fields take them, and they name what is there.

.venv/bin/python -m pytest tests/test_deploy.py
"""

import re
import shlex
import subprocess
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

from r2r import cli
from r2r.config import load_run_file
from r2r.errors import BadInput
from r2r.serving.app import RAY_SERVE, Replica, build
from tests.kuberay import RAY_JOB, RAY_SERVICE

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def test_ray_serve_takes_the_file_and_builds_the_application(monkeypatch):
    monkeypatch.setenv("R2R_API_KEYS", "one,two")
    schema = ServeDeploySchema.model_validate(yaml.safe_load((ROOT / "serve.yaml").read_text()))
    assert schema.http_options.host == "127.0.0.1"
    (app,) = schema.applications
    module, _, name = app.import_path.partition(":")
    assert (module, name) == (build.__module__, build.__name__)
    deployment = call_user_app_builder_with_args_if_necessary(build, app.args)._bound_deployment
    assert deployment.name == "rerank" and issubclass(deployment.func_or_class, Replica)
    student, adapter, settings, public, keys, _folder = deployment.init_args
    assert (student, adapter, public, len(keys)) == ("demo", None, "demo", 2)
    assert settings.max_requests == app.args["max_requests"]
    # No key travels, only hashes.
    assert b"one" not in b"".join(keys)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "args: student: missing setting; add it"),
        ({"student": "demo", "replicas": 0}, "args: replicas: "),
        ({"student": "demo", "replica": 2}, "args: replica: unknown setting"),
        ({"student": "demo", "port": 1}, "args: port: belongs under http_options; write it there"),
        ({"student": "demo", "api_keys": "/no/such"}, "api_keys: /no/such: "),
    ],
)
def test_wrong_arguments_are_one_line(wrong, said):
    with pytest.raises(BadInput) as told:
        build(wrong)
    assert str(told.value).startswith(said) and "\n" not in str(told.value)


@pytest.fixture(scope="module")
def service() -> dict:
    return yaml.safe_load((DEPLOY / "rayservice.yaml").read_text())


@pytest.fixture(scope="module")
def job() -> dict:
    return yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())


def test_kuberay_knows_all_fields(service, job):
    jsonschema.validate(service, RAY_SERVICE)
    jsonschema.validate(job, RAY_JOB)
    with pytest.raises(jsonschema.ValidationError, match="entrypont"):
        jsonschema.validate(job | {"spec": job["spec"] | {"entrypont": "x"}}, RAY_JOB)


def node_types(spec: dict) -> dict:
    """Return what Ray's autoscaler in a KubeRay head makes of a cluster."""
    resource = {"metadata": {"name": "r2r", "namespace": "default"}, "spec": spec}
    return _derive_autoscaling_config_from_ray_cr(resource)["available_node_types"]


def selector(spec: dict, group: str) -> dict:
    (found,) = (one for one in spec["workerGroupSpecs"] if one["groupName"] == group)
    return found["template"]["spec"].get("nodeSelector", {})


def test_the_service_keeps_a_replica_on_demand_and_has_more_on_spot(service):
    spec = service["spec"]["rayClusterConfig"]
    types = node_types(spec)
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert "spot" not in str(selector(spec, "gpu")) and "spot" in str(selector(spec, "gpu-spot"))
    (app,) = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"])).applications
    assert app.import_path == "r2r.serving.app:build"
    deployment = call_user_app_builder_with_args_if_necessary(build, app.args)._bound_deployment
    wanted = deployment.ray_actor_options
    for name in ("gpu", "gpu-spot"):
        assert types[name]["resources"]["GPU"] >= wanted["num_gpus"]
        assert types[name]["resources"]["CPU"] >= wanted["num_cpus"]
    assert types["gpu"]["min_workers"] == app.args["min_replicas"]
    assert types["gpu"]["max_workers"] + types["gpu-spot"]["max_workers"] == app.args["replicas"]


def test_no_pod_of_the_service_starts_without_keys(service):
    for template in pods(service["spec"]["rayClusterConfig"]):
        (keys,) = (one for one in template["containers"][0]["env"] if one["name"] == "R2R_API_KEYS")
        assert not keys["valueFrom"]["secretKeyRef"].get("optional")


def test_ray_serve_is_set_as_r2r_serve_sets_its_own(service):
    for pod in pods(service["spec"]["rayClusterConfig"]):
        (container,) = pod["containers"]
        given = {one["name"]: one["value"] for one in container["env"] if one["name"].startswith("RAY_SERVE_")}
        assert given == RAY_SERVE


def pods(spec: dict) -> list[dict]:
    return [one["template"]["spec"] for one in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def test_the_job_runs_the_pipeline_on_nodes_that_its_run_file_needs(job, monkeypatch):
    python, script, *rest = shlex.split(job["spec"]["entrypoint"])
    assert python == "python" and (ROOT / Path(script).relative_to("/opt/r2r")).exists()
    monkeypatch.chdir(ROOT)
    given, settings = cli._parse("run", cli.COMMANDS["run"], [str(Path(rest[0]).relative_to("/opt/r2r")), *rest[1:]])
    assert settings == load_run_file(given.file, {"out": "s3://REPLACE/runs/msmarco"})
    spec = job["spec"]["rayClusterSpec"]
    types = node_types(spec)
    assert types["headgroup"]["resources"]["CPU"] == 0
    gpu = types["gpu-spot"]
    assert gpu["min_workers"] == 0 and "spot" in str(selector(spec, "gpu-spot"))
    assert "GPU" not in types["cpu"]["resources"] and "spot" not in str(selector(spec, "cpu"))
    for stage in (settings.annotate, settings.rerank):
        assert gpu["resources"]["GPU"] >= stage.gpus and gpu["resources"]["CPU"] >= stage.cpus
        assert gpu["max_workers"] * gpu["resources"]["GPU"] >= stage.actors * stage.gpus


def test_all_pods_are_users_with_the_ray_of_the_image(service, job):
    for spec in (service["spec"]["rayClusterConfig"], job["spec"]["rayClusterSpec"]):
        assert spec["rayVersion"] == version("ray") and spec["authOptions"] == {"mode": "token"}
        for pod in pods(spec):
            assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
            assert {one["mountPath"] for one in pod["containers"][0]["volumeMounts"]} == {"/cache", "/dev/shm"}


def instructions() -> list[list[str]]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [line.split(None, 1) for line in text.splitlines() if line.strip()]


def test_the_image_is_made_of_files_that_are_there_and_sent():
    sent = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    copied = [name for kind, rest in instructions() if kind == "COPY" for name in rest.split()[:-1]]
    assert all((ROOT / name).exists() and any(fnmatch(name.split("/")[0], one) for one in sent) for name in copied)
    # What pyproject.toml reads, and every file of versions.
    needed = {"README.md", "LICENSE", "pyproject.toml", "r2r/__init__.py", "r2r", "jobs"}
    assert needed | {file.name for kind in ("constraints", "overrides") for file in ROOT.glob(f"{kind}*.txt")} == set(
        copied
    )


def test_the_image_has_a_pinned_base_and_a_user():
    found = instructions()
    assert ["ARG", "BASE=python:3.11.14-slim-bookworm"] in found and ["FROM", "${BASE}"] in found
    assert [rest for kind, rest in found if kind == "USER"] == ["1000"]
    runs = " ".join(rest for kind, rest in found if kind == "RUN")
    assert "--uid 1000" in runs and not re.search(r"\bmake\b|sudo", runs)
    # As the Makefile installs it.
    makefile = (ROOT / "Makefile").read_text()
    for words in ("--constraints constraints-cpu.txt --overrides overrides-cpu.txt", "--constraints constraints.txt"):
        assert words in makefile and words in runs


@pytest.mark.parametrize(
    ("build", "said"),
    [
        ("cpu", "--constraints constraints-cpu.txt --overrides overrides-cpu.txt --torch-backend=cpu .[cpu]"),
        ("gpu", ".[gpu]"),
        ("tpu", None),
    ],
)
def test_the_image_installs_what_its_argument_says(tmp_path, build, said):
    """Its own shell command, with stand-ins for the installers that print what they are given."""
    (command,) = (rest for kind, rest in instructions() if kind == "RUN" and "$BUILD" in rest)
    for name in ("pip", "uv"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    env = {"BUILD": build, "UV": "1", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True)
    if said is None:
        assert done.returncode == 2 and done.stderr == "BUILD: tpu: unknown; give cpu or gpu\n"
    else:
        installed = f"uv pip install --system --no-cache --constraints constraints.txt {said}"
        assert done.stdout.splitlines() == ["pip install --no-cache-dir uv==1", installed]
