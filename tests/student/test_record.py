"""The adapter's record: it fills in what the settings leave open, and settings that contradict it are refused."""

import json
import re
import shutil

import pytest

from r2r.config import DistillSettings, RerankSettings, ServeSettings
from r2r.errors import BadInput
from r2r.serving import app
from r2r.student import record, rerank
from r2r.student.record import Taught, completed, warn_of_long_windows, warn_of_slow_adapter

DEFAULT = Taught(20, 10, "both", "first", "labels")


def annotation(passages: int) -> dict:
    return {"docids": [str(number) for number in range(passages)]}


@pytest.fixture
def adapter(tmp_path):
    """Return a function that makes a distill folder; its adapter learned from windows of 8, if not told otherwise."""

    def make(*rows: dict, **settings) -> str:
        folder = tmp_path / "distill" / "adapter"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text("{}")
        distilled = DistillSettings(student="demo", **({"reasoning": "direct"} | settings))
        record.write(folder, list(rows) or [annotation(5), annotation(8), annotation(2)], distilled, 1.5)
        return str(tmp_path / "distill")

    return make


def test_what_is_left_open_is_as_trained(adapter, tmp_path):
    folder = adapter(order_position="last")
    assert completed(RerankSettings(), folder) == Taught(8, 4, "direct", "last", "labels", 1.5)
    assert completed(ServeSettings(), folder) == Taught(8, 4, "direct", "last", "labels", 1.5)
    # The record goes with the adapter.
    shutil.copytree(f"{folder}/adapter", tmp_path / "copy")
    assert completed(RerankSettings(), str(tmp_path / "copy")) == Taught(8, 4, "direct", "last", "labels", 1.5)


@pytest.mark.parametrize(
    ("labels", "window", "warning"),
    [
        ("first", 20, "window: 20: warning: .* lists of 8 at most, and never of the labels I to T; leave window out"),
        ("drawn", 20, "window: 20: warning: .* lists of 8 at most; leave window out"),
        ("drawn", 8, None),
        ("first", None, None),
    ],
)
def test_a_window_longer_than_the_lists_learned_from_is_warned_of(adapter, capsys, labels, window, warning):
    warn_of_long_windows(RerankSettings(window=window), adapter(labels=labels))
    said = capsys.readouterr().err
    assert re.search(warning, said) if warning else said == ""


def test_rerank_and_serve_warn_before_they_start(adapter, tmp_path, monkeypatch, capsys):
    folder = adapter()
    monkeypatch.setattr(app, "check_student", lambda *arguments: None)
    # Each would go on to start Ray.
    for module, then in ((rerank.datasets, "open_candidates"), (app, "start_ray")):
        monkeypatch.setattr(module, then, lambda *given: (_ for _ in ()).throw(InterruptedError))
    with pytest.raises(InterruptedError):
        rerank._work("candidates", "demo", folder, tmp_path, RerankSettings(window=20), None)
    with pytest.raises(InterruptedError):
        app.serve("demo", folder, ServeSettings(window=20))
    said = capsys.readouterr().err
    assert said.count("window: 20: warning: ") == said.count("merge: warning: on a CPU, vLLM is many times slower") == 2


def test_an_adapter_beside_its_student_is_warned_of_on_a_cpu_alone(adapter, tmp_path, capsys):
    folder = adapter()
    warn_of_slow_adapter(RerankSettings(), folder)
    assert capsys.readouterr().err.startswith(f"merge: warning: on a CPU, vLLM is many times slower with {folder} ")
    for settings in (RerankSettings(merge=True), RerankSettings(gpus=1), ServeSettings(gpus=0.5)):
        warn_of_slow_adapter(settings, folder)
    warn_of_slow_adapter(RerankSettings(), None)
    # A model with all weights trained is loaded in the student's place.
    (tmp_path / "distill" / "adapter").rename(tmp_path / "distill" / "model")
    (tmp_path / "distill" / "model" / "adapter_config.json").rename(tmp_path / "distill" / "model" / "config.json")
    warn_of_slow_adapter(RerankSettings(), folder)
    assert capsys.readouterr().err == ""


def test_a_student_without_an_adapter_is_not_warned_of(capsys):
    warn_of_long_windows(RerankSettings(window=20), None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("passages", "window", "stride"), [(1, 2, 1), (3, 3, 1), (20, 20, 10), (40, 20, 10)])
def test_the_longest_annotation_decides_the_window(adapter, passages, window, stride):
    assert completed(RerankSettings(), adapter(annotation(1), annotation(passages)))[:2] == (window, stride)


@pytest.mark.parametrize(
    ("settings", "taught"),
    [
        ({"window": 12}, (12, 6, "direct", "first", "labels", 1.5)),
        ({"window": 12, "stride": 5}, (12, 5, "direct", "first", "labels", 1.5)),
        ({"window": 8}, (8, 3, "direct", "first", "labels", 1.5)),
        ({"stride": 2}, (8, 2, "direct", "first", "labels", 1.5)),
        ({"reasoning": "both"}, (8, 3, "both", "first", "labels", 1.5)),
        ({"reasoning": "direct", "explain": 8}, (8, 3, "direct", "first", "labels", 1.5)),
        ({"order_position": "first"}, (8, 3, "direct", "first", "labels", 1.5)),
    ],
)
def test_a_setting_that_is_given_wins(adapter, settings, taught):
    folder = adapter()
    file = f"{folder}/adapter/r2r.json"
    with open(file) as recorded:
        changed = json.load(recorded) | {"stride": 3}
    with open(file, "w") as recorded:
        json.dump(changed, recorded)
    assert completed(RerankSettings(**settings), folder) == taught


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"order_position": "last"}, r"^order_position: last: .*distill was distilled with first; leave it out$"),
        ({"reasoning": "both", "explain": 1}, r"^reasoning: both: .*distill was distilled with direct; leave it out$"),
        ({"stride": 9}, r"^stride: 9: more than the window of 8, so passages are skipped$"),
        ({"explain": 9}, r"^explain: 9: more than the window of 8 that is explained from$"),
    ],
)
def test_a_setting_that_contradicts_the_record_is_refused(adapter, settings, wrong):
    with pytest.raises(BadInput, match=wrong):
        completed(RerankSettings(**settings), adapter())


def test_reasons_before_the_order_are_those_that_were_taught(adapter):
    folder = adapter(order_position="last")
    with pytest.raises(BadInput, match=r"reasoning: both: .* was distilled with direct"):
        completed(RerankSettings(reasoning="both"), folder)
    with pytest.raises(BadInput, match="mode: generate: writes the order first"):
        completed(RerankSettings(mode="generate"), folder)


def test_a_server_may_be_asked_for_reasons_at_any_time(adapter):
    with pytest.raises(BadInput, match=r"reasoning: both: .* was distilled with direct"):
        completed(ServeSettings(reasoning="both"), adapter())


def test_a_student_without_reasons_gives_none_and_writes_the_order_alone(adapter):
    folder = adapter(reasoning="none", order_position="last")
    with pytest.raises(BadInput, match=r"^explain: 3: .*distill gives no reasons"):
        completed(RerankSettings(explain=3), folder)
    # In training, nothing came before the order.
    assert completed(RerankSettings(), folder).order_position == "first"


@pytest.mark.parametrize("has_adapter", [True, False])
def test_without_a_record_the_defaults_hold(tmp_path, has_adapter):
    (tmp_path / "adapter_config.json").write_text("{}")
    folder = str(tmp_path) if has_adapter else None
    assert completed(RerankSettings(), folder) == completed(ServeSettings(), folder) == DEFAULT
    given = RerankSettings(window=10, reasoning="direct", order_position="last", explain=10)
    assert completed(given, folder) == Taught(10, 5, "direct", "last", "labels")
    with pytest.raises(BadInput, match=r"explain: 3: .* gives no reasons"):
        completed(RerankSettings(reasoning="none", explain=3), folder)


@pytest.mark.parametrize("content", ["", "{", "5", "[]x"])
def test_a_broken_record_is_told(adapter, content):
    folder = adapter()
    with open(f"{folder}/adapter/r2r.json", "w") as recorded:
        recorded.write(content)
    with pytest.raises(BadInput, match=r"r2r\.json: cannot be read .*; distill again, or remove the file"):
        completed(RerankSettings(), folder)
