"""The contract of a stage: what makes it run again, what does not, and that a plan touches nothing.

The settings are not listed here: each test goes through all of them, so that a new setting cannot be forgotten.
"""

import dataclasses
import json
import typing

import pytest

from r2r import config, pipeline, stage, tables
from r2r.config import RunFile
from r2r.errors import BadInput
from r2r.identity import digest
from r2r.stage import Input, Result, Stage, plan, run

SECTIONS = {
    "index": config.IndexSettings,
    "retrieve": config.RetrieveSettings,
    "make_queries": config.MakeQueriesSettings,
    "annotate": config.AnnotateSettings,
    "distill": config.DistillSettings,
    "rerank": config.RerankSettings,
    "evaluate": config.EvaluateSettings,
}
# The folders that a section's settings go into.
FOLDERS = {
    "index": ["index"],
    "retrieve": ["retrieve", "retrieve-train"],
    "make_queries": ["queries"],
    "annotate": ["annotate", "annotate-test"],
    "distill": ["distill"],
    "rerank": ["rerank-zero-shot", "rerank"],
    "evaluate": ["evaluate"],
}
# Settings that the run file itself decides for a folder.
DECIDED = {("rerank", name): ["rerank"] for name in ("explain", "merge", "scores")}
DECIDED |= {("annotate", name): ["annotate"] for name in ("depth", "draws", "distinct", "positives")}
BASE = {
    **{"out": "run", "corpus": "demo", "queries": "demo", "qrels": "demo"},
    **{
        "make_queries": {"n": 10, "teacher": "demo", "actors": 2},
        "annotate": {"teacher": "demo", "actors": 2},
        "distill": {"student": "demo", "batches": 4, "reasoning": "direct"},
    },
    **{"rerank": {"window": 10, "actors": 2}, "zero_shot": True, "teacher_row": True},
}
CASES = [(section, name) for section, model in SECTIONS.items() for name in model.model_fields]


def other(section: str, name: str) -> typing.Any:
    """Return a valid value of a setting that is not the one in BASE, nor the default."""
    field = SECTIONS[section].model_fields[name]
    now = BASE.get(section, {}).get(name, None if field.is_required() else field.get_default(call_default_factory=True))
    special = {
        "engine": {"max_model_len": 512},
        "tracker": "mlflow",
        "language": "German",
        "measures": ["AP"],
        "lora_targets": ["q_proj"],
        "teacher": "other/model",
        "server": config.Dialect(seed=False),
    }
    special |= {"depth": 50, "positives": "demo#dev"}
    special |= {"student": "other/model", "max_cost": 5.0, "window": 12, "stride": 4, "b": 0.5, "max_reject_rate": 0.5}
    special |= {"max_missing": 0.5}
    special |= {
        "warmup": 0.5,
        "held_out": 0.2,
        "lora_dropout": 0.1,
        "tokenizer": "some/model",
        "baseline": "student",
        "tokens_per_second": 9.0,
        "epochs": 2.5,
        "cpus": 2.0,
        "examples": "some/file",
    }
    special |= {"order_position": "last" if section == "distill" else "first", "min_actors": 2, "workers": 3}
    special |= {"reasoning": "direct" if section == "annotate" else "none", "min_workers": 2}
    special |= {"scores": "likelihood" if section == "distill" else "labels", "strategy": "sliding"}
    if name in special:
        return special[name]
    kinds = typing.get_args(field.annotation)
    if isinstance(now, bool):
        return not now
    if isinstance(now, str) and kinds:
        return next(kind for kind in kinds if kind != now)
    if isinstance(now, str):
        return now + "x"
    return now + 1


def changed(section: str, name: str) -> RunFile:
    values = {**BASE.get(section, {}), name: other(section, name)}
    if name == "max_cost":
        values |= {"price_in": 1.0}
    settings = RunFile(**{**BASE, section: values})
    assert getattr(getattr(settings, section), name) != getattr(getattr(RunFile(**BASE), section), name)
    return settings


def stubbed(settings: RunFile) -> list[Stage]:
    """Return the stages of a run file with work that takes no time: its content follows from the stage's identity."""

    def stub(one: Stage) -> Stage:
        def work(identity: stage.Identity) -> Result:
            one.out.mkdir(parents=True, exist_ok=True)
            (one.out / "run.txt").write_text(digest([one.name, *identity]))
            if "queries" in one.writes:
                # Without this table, the folder is no dataset.
                tables.write([], one.out, "queries")
            return Result({"rows": 1}, digest([one.name, *identity]), ["run.txt"])

        return dataclasses.replace(one, check=lambda there: None, work=work, after=lambda: None)

    return [stub(one) for one in pipeline.stages_of(settings)]


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """The folder of a run whose stages are all done."""
    monkeypatch.chdir(tmp_path)
    # Its package need not be installed here.
    monkeypatch.setattr("r2r.student.adapter.check_tracker", lambda tracker: None)
    for one in stubbed(RunFile(**BASE)):
        run(one)
    assert not any(found.why for found in plan(stubbed(RunFile(**BASE))))
    return tmp_path / "run"


def runs_again(settings: RunFile) -> list[str]:
    return [found.stage.out.name for found in plan(stubbed(settings)) if found.why]


def after(folders: list[str]) -> list[str]:
    """Return the folders, and those that read them, directly or not."""
    found = set(folders)
    stages = list(pipeline.stages_of(RunFile(**BASE)))
    for one in stages:
        if any(
            f"run/{folder}" == put.source or put.source.startswith(f"run/{folder}/")
            for put in one.inputs.values()
            for folder in found
        ):
            found.add(one.out.name)
    return [one.out.name for one in stages if one.out.name in found]


@pytest.mark.parametrize(("section", "name"), [case for case in CASES if SECTIONS[case[0]].kind(case[1]) == "how"])
def test_a_how_setting_repeats_nothing(finished, section, name):
    assert runs_again(changed(section, name)) == []


@pytest.mark.parametrize(("section", "name"), [case for case in CASES if SECTIONS[case[0]].kind(case[1]) != "how"])
def test_any_other_setting_repeats_its_stage_and_those_after(finished, section, name):
    folders = DECIDED.get((section, name), FOLDERS[section])
    # The model that is distilled is also the one that ranks.
    folders = [*folders, "rerank-zero-shot", "rerank"] if name == "student" else folders
    # The row without training is scored like the student.
    folders = [*folders, "rerank-zero-shot"] if (section, name) == ("distill", "scores") else folders
    assert runs_again(changed(section, name)) == after(folders)


def test_every_resource_is_a_how():
    resources = {"actors", "min_actors", "cpus", "gpus", "in_flight", "workers", "min_workers", "heap", "attempts"}
    resources |= {"max_tokens", "false_evidence", "max_reject_rate", "price_in", "price_out", "max_cost", "zero_stage"}
    resources |= {"checkpointing", "save_every", "tokens_per_second", "max_missing", "server", "batch", "tracker"}
    assert {name for section, name in CASES if SECTIONS[section].kind(name) == "how"} == resources
    assert config.RerankSettings(engine={"tensor_parallel_size": 8}).what() == config.RerankSettings().what()
    assert config.RerankSettings(engine={"max_model_len": 8}).what() != config.RerankSettings().what()


def test_the_same_content_from_other_machines_is_the_same_input(finished):
    # The index is built again, elsewhere and in another way, and comes out the same: nothing after it is repeated.
    manifest = json.loads((finished / "index" / "manifest.json").read_text())
    manifest |= {"seconds": 1e6, "versions": {}, "settings": {}}
    (finished / "index" / "manifest.json").write_text(json.dumps(manifest))
    assert runs_again(RunFile(**BASE)) == []


def test_a_stage_with_the_same_outcome_spares_those_after(finished):
    def work(identity):
        (finished / "index" / "run.txt").write_text("again")
        return Result({"rows": 1}, content, ["run.txt"])

    content = json.loads((finished / "index" / "manifest.json").read_text())["content"]
    index, *others = stubbed(changed("index", "shards"))
    assert run(dataclasses.replace(index, work=work)) is not None
    assert [run(one) for one in others] == [None] * len(others)


def test_the_plan_says_why(finished):
    why = {found.stage.out.name: found.why for found in plan(stubbed(changed("distill", "steps")))}
    assert why["distill"] == ["steps: 100 -> 101"]
    assert why["rerank"] == ["adapter: distill runs before it"]
    assert why["annotate"] == []
    (finished / "retrieve" / "run.txt").unlink()
    why = {found.stage.out.name: found.why for found in plan(stubbed(RunFile(**BASE)))}
    assert why["retrieve"] == ["run.txt is missing or was changed"]
    assert why["annotate-test"] == ["candidates: retrieve runs before it"]


class Older(config.Section):
    depth: int = 5


class Newer(Older):
    """The next release, with a setting more."""

    windows: int = config.added(0)


def test_an_added_setting_repeats_nothing_until_it_is_used(tmp_path):
    def made(settings):
        return Stage("x", tmp_path / "x", settings, {}, lambda there: None, lambda identity: Result({}, "same"), [])

    run(made(Older()))
    assert not plan([made(Newer())])[0].why
    assert plan([made(Newer(windows=2))])[0].why == ["windows: default -> 2"]
    run(made(Newer(windows=2)))
    assert plan([made(Newer())])[0].why == ["windows: 2 -> default"]


def test_an_input_with_other_content_is_told(tmp_path):
    source = tmp_path / "corpus.txt"
    source.write_text("one")
    made = Stage(
        **{
            "name": "x",
            "out": tmp_path / "x",
            "settings": config.IndexSettings(),
            "inputs": {"corpus": Input(str(source))},
        },
        **{"check": lambda there: None, "work": lambda identity: Result({}, "same"), "writes": []},
    )
    assert run(made) is not None and run(made) is None
    source.write_text("two")
    assert plan([made])[0].why == [f"corpus: other content, {source}"]
    # The place does not count.
    source.rename(tmp_path / "moved.txt").write_text("one")
    moved = dataclasses.replace(made, inputs={"corpus": Input(str(tmp_path / "moved.txt"))})
    assert plan([moved])[0].why == []


def test_a_plan_touches_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(runs_again(RunFile(**BASE))) == 10
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_leaves_what_was_done(finished):
    def fails(there):
        raise BadInput("stride: 99: wrong")

    stages = stubbed(changed("rerank", "window"))
    rerank = dataclasses.replace(next(one for one in stages if one.out.name == "rerank"), check=fails)
    with pytest.raises(BadInput, match="stride: 99"):
        run(rerank)
    assert runs_again(RunFile(**BASE)) == []


def test_a_mistake_in_the_last_stage_ends_the_plan(tmp_path, monkeypatch):
    def fails(there):
        raise BadInput("measures: wrong")

    monkeypatch.chdir(tmp_path)
    *stages, last = stubbed(RunFile(**BASE))
    with pytest.raises(BadInput, match="measures: wrong"):
        plan([*stages, dataclasses.replace(last, check=fails)])


def test_sources_that_an_earlier_stage_will_write_are_not_there_yet(finished):
    seen = {}

    def looks(there):
        seen.update({source: there(source) for source in ("run/distill", "run/retrieve/run.txt", "run/index", "demo")})

    stages = stubbed(changed("distill", "steps"))
    stages[-1] = dataclasses.replace(stages[-1], check=looks)
    plan(stages)
    assert seen == {"run/distill": False, "run/retrieve/run.txt": True, "run/index": True, "demo": True}


def test_a_submitted_job_needs_a_folder_that_all_machines_see(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="out: run/index: a submitted job's own folder goes with it"):
        plan(stubbed(RunFile(**BASE)))
    plan(stubbed(RunFile(**{**BASE, "out": str(tmp_path / "run")})))


def test_a_place_that_is_a_file_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").write_text("")
    with pytest.raises(BadInput, match=r"out: run/index: .*run is a file"):
        plan(stubbed(RunFile(**BASE)))


def test_the_manifest_says_what_went_in_and_came_out(finished, capsys):
    manifest = json.loads((finished / "index" / "manifest.json").read_text())
    assert manifest["stage"] == "index" and manifest["rows"] == {"rows": 1} and manifest["files"] == {"run.txt": 64}
    assert manifest["settings"]["shards"] == 4 and manifest["what"]["shards"] == 4 and "workers" not in manifest["what"]
    assert manifest["inputs"]["corpus"]["source"] == "demo" and "ray" in manifest["versions"]
    run(stubbed(RunFile(**BASE))[0])
    assert "index: done already" in capsys.readouterr().out


def test_a_broken_manifest_is_none(finished):
    (finished / "evaluate" / "manifest.json").write_text('{"stage": "eval')
    assert runs_again(RunFile(**BASE)) == ["evaluate"]


def test_the_corpus_counts_for_annotations_only_where_positives_need_it():
    def inputs(settings):
        stages = {one.out.name: one for one in pipeline.stages_of(settings)}
        return [set(stages[name].inputs) - {"teacher", "candidates"} for name in ("annotate", "annotate-test")]

    assert inputs(RunFile(**BASE)) == [set(), set()]
    assert inputs(changed("annotate", "positives")) == [{"positives", "corpus"}, set()]
