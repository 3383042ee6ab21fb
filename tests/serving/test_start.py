"""The server's start and end, with stand-ins for Ray and Ray Serve."""

import asyncio
import functools
import logging
import logging.config
import logging.handlers
import re
import sys
import threading
from types import SimpleNamespace

import pytest
import ray
from ray import serve as ray_serve

from r2r.config import ServeSettings
from r2r.errors import BadInput, Terminated
from r2r.llm import Died
from r2r.llm.engine import with_short_steps
from r2r.serving import app
from tests.serving import served

TRACE = """The deployment failed to start 1 times in a row. Error:
ray::ServeReplica:rerank:rerank.initialize_and_get_metadata() (pid=1)
r2r.errors.BadInput: runs/x: vLLM answers as demo without it
During handling of the above exception, another exception occurred"""


def note(made, call, *given, **options):
    made.append(call)


@pytest.fixture
def calls(monkeypatch):
    """The calls of Ray Serve, none of which does anything."""
    made = []
    for name in ("start", "run", "delete", "shutdown"):
        monkeypatch.setattr(ray_serve, name, functools.partial(note, made, name))
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(app, "start_ray", lambda: made.append("ray"))
    monkeypatch.setattr(app, "check_arguments", lambda engine: None)
    monkeypatch.setattr(app, "check_student", lambda *arguments: None)
    monkeypatch.delenv("R2R_API_KEYS", raising=False)
    return made


@pytest.mark.parametrize("ending", [KeyboardInterrupt, Terminated])
def test_a_server_that_is_told_to_end_finishes_what_it_has_and_returns(calls, monkeypatch, capsys, ending):
    monkeypatch.setattr(app.signal, "pause", lambda: (_ for _ in ()).throw(ending))
    app.serve("demo", None, ServeSettings(port=1))
    assert calls == ["ray", "start", "run", "delete", "shutdown"]
    said = capsys.readouterr()
    assert said.out.startswith("serve: demo answers POST http://127.0.0.1:1/v1/rerank; ready after 0 s;")
    assert said.err.endswith("serve: ending; requests in flight are finished first\n")


@pytest.mark.parametrize("ending", [KeyboardInterrupt, Terminated, OSError])
def test_a_start_that_is_ended_leaves_nothing_behind(calls, monkeypatch, ending):
    monkeypatch.setattr(ray_serve, "run", lambda *given, **options: (_ for _ in ()).throw(ending))
    with pytest.raises(ending):
        app.serve("demo", None, ServeSettings())
    assert calls == ["ray", "start", "shutdown"]


def test_a_replicas_mistake_is_the_commands(calls, monkeypatch):
    monkeypatch.setattr(ray_serve, "run", lambda *given, **options: (_ for _ in ()).throw(RuntimeError("failed")))
    for trace, error in ((TRACE, BadInput), ("out of memory", RuntimeError)):
        found = SimpleNamespace(deployments={"rerank": SimpleNamespace(message=trace)})
        monkeypatch.setattr(ray_serve, "status", lambda found=found: SimpleNamespace(applications={"rerank": found}))
        with pytest.raises(error) as told:
            app.serve("demo", None, ServeSettings())
        assert error is RuntimeError or str(told.value) == "runs/x: vLLM answers as demo without it"


@pytest.mark.parametrize(
    ("settings", "keys", "warned"),
    [({"host": "0.0.0.0"}, "", True), ({"host": "0.0.0.0"}, "one", False), ({}, "", False)],
)
def test_a_server_that_is_open_to_all_warns(calls, monkeypatch, capsys, settings, keys, warned):
    monkeypatch.setenv("R2R_API_KEYS", keys)
    monkeypatch.setattr(app, "start_ray", lambda: (_ for _ in ()).throw(InterruptedError))
    with pytest.raises(InterruptedError):
        app.serve("demo", None, ServeSettings(**settings))
    assert ("warning: no API keys" in capsys.readouterr().err) == warned


def test_a_start_says_what_it_waits_for(monkeypatch):
    said, heard = [], threading.Event()
    monkeypatch.setattr(app, "_PATIENCE", 0.01)
    monkeypatch.setattr(app, "_say", lambda line: (said.append(line), heard.set()))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with app._telling_of_the_start() as checked:
        assert heard.wait(20)
        checked.set()
        heard.clear()
        # The next one may have been made before the checks ended.
        assert heard.wait(20) and not heard.clear() and heard.wait(20)
    assert said[0].endswith(" s, waiting for the student to be checked") and said[-1].endswith(
        " s, waiting for Ray to start"
    )


def test_replicas_are_what_a_start_waits_for_last(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_serve, "status", lambda: SimpleNamespace(applications={}))
    assert app._waits_for() == "Ray Serve to start"
    replicas = SimpleNamespace(replica_states={"STARTING": 2}, message="No room.\nMore")
    found = SimpleNamespace(applications={"rerank": SimpleNamespace(deployments={"rerank": replicas})})
    monkeypatch.setattr(ray_serve, "status", lambda: found)
    assert app._waits_for() == "replicas to load the student (2 starting): No room."


def test_a_replica_is_ready_when_its_adapter_was_checked_and_its_engine_answered(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made = []

    def ranker(student, adapter, settings):
        made.append(served.Ranker(settings))
        made[-1].error = BadInput("adapter: does not fit") if adapter else None
        return made[-1]

    monkeypatch.setattr(app, "Ranker", ranker)
    monkeypatch.setattr(app, "with_short_steps", lambda engine: engine)
    arguments = (ServeSettings(), "demo", [], str(tmp_path))
    with pytest.raises(BadInput, match="does not fit"):
        asyncio.run(app.Replica.__init__(object.__new__(app.Replica), "demo", "x", *arguments))
    replica = object.__new__(app.Replica)
    asyncio.run(replica.__init__("demo", None, *arguments))
    assert len(made[-1].calls) == 1
    asyncio.run(replica.check_health())
    made[-1].model.close()
    with pytest.raises(Died):
        asyncio.run(replica.check_health())


def test_ray_serves_log_has_a_line_for_each_request_also_after_vllm_configured_logging(monkeypatch, tmp_path):
    file = logging.FileHandler(tmp_path / "replica.log")
    handler, log = logging.handlers.MemoryHandler(1, target=file), logging.getLogger("ray.serve")

    def ranker(student, adapter, settings):
        # As vLLM does while it loads.
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
        return served.Ranker(settings)

    monkeypatch.setattr(app, "Ranker", ranker)
    monkeypatch.setattr(app, "with_short_steps", lambda engine: engine)
    log.addHandler(handler)
    try:
        asyncio.run(app.Replica.__init__(object.__new__(app.Replica), "demo", None, ServeSettings(), "demo", [], ""))
        log.error("POST /v1/rerank 200")
    finally:
        log.removeHandler(handler)
        file.close()
    assert handler.buffer == [] and (tmp_path / "replica.log").read_text() == "POST /v1/rerank 200\n"


def test_a_free_port_is_told(calls, monkeypatch, capsys):
    monkeypatch.setattr(app.signal, "pause", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    app.serve("demo", None, ServeSettings(port=0))
    port = re.search(r"http://127.0.0.1:(\d+)/", capsys.readouterr().out)[1]
    assert int(port) > 1023
    with pytest.raises(BadInput, match=r"^host: 192\.0\.2\.1: .*; give an address of this machine$"):
        app.serve("demo", None, ServeSettings(host="192.0.2.1", port=0))


@pytest.mark.parametrize(
    ("cpu", "given", "added"),
    [
        (True, {"dtype": "float32"}, {"enable_chunked_prefill": True, "max_num_batched_tokens": 512}),
        (True, {"max_num_batched_tokens": 2048}, {"enable_chunked_prefill": True}),
        (True, {"enable_chunked_prefill": False}, {}),
        (False, {}, {}),
    ],
)
def test_on_a_cpu_a_step_of_the_engine_is_short_unless_told_otherwise(monkeypatch, cpu, given, added):
    platforms = SimpleNamespace(current_platform=SimpleNamespace(is_cpu=lambda: cpu))
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    assert with_short_steps(given) == given | added
