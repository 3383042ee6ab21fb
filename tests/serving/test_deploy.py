"""serve.yaml: Ray Serve's own schema takes it, and its import path builds what `r2r serve` serves."""

from pathlib import Path

import pytest
import yaml
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

from r2r.errors import BadInput
from r2r.serving.app import Replica, build

ROOT = Path(__file__).parents[2]


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
