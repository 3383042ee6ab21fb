"""Run files: what is right is read with its types, what is wrong is named with its file and setting; which systems a
run file puts into the table."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from r2r import config
from r2r.cli import main
from r2r.config import load_run_file
from r2r.errors import BadInput
from r2r.pipeline import stages_of

ENV = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
SECTIONS = {name: field.annotation for name, field in config.RunFile.model_fields.items()}
SECTIONS = {
    name: model for name, model in SECTIONS.items() if isinstance(model, type) and issubclass(model, config.Section)
}
SECTIONS |= {"serve": config.ServeSettings}
CONFIGS = Path(__file__).parents[1] / "jobs" / "configs"
SOUND = """
out: runs/x
corpus: demo
queries: demo
train_queries: demo#train
qrels: demo
annotate: {teacher: demo}
distill: {student: demo}
"""


def load(tmp_path, text):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    return load_run_file(str(file))


def test_a_run_file_gives_typed_settings_with_defaults(tmp_path):
    run = load(tmp_path, SOUND + "rerank: {explain: 3, engine: {dtype: float32}}\n")
    assert (run.rerank.explain, run.rerank.window, run.rerank.engine) == (3, None, {"dtype": "float32"})
    assert (run.distill.pairwise, run.distill.listwise, run.distill.generation) == (0.4, 0.4, 0.2)


@pytest.mark.parametrize("name", sorted(file.stem for file in CONFIGS.glob("*.yaml")))
def test_the_run_files_of_the_project_are_sound(name):
    assert load_run_file(str(CONFIGS / f"{name}.yaml")).out == f"runs/{name}"


@pytest.mark.parametrize(("name", "examples"), [("paper-8gpu", 64), ("paper-24gb", 16)])
def test_the_papers_setting(name, examples):
    distill = load_run_file(str(CONFIGS / f"{name}.yaml")).distill
    assert (distill.pairwise, distill.listwise, distill.generation) == (0.4, 0.4, 0.2)
    assert distill.batch * distill.batches == examples
    assert distill.student in ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("index: {shard: 2}", "run.yaml: index.shard: unknown setting; known here: shards"),
        ("colour: blue", "run.yaml: colour: unknown setting"),
        (
            "distill: {student: demo, accumulate: 4}",
            "distill.accumulate: unknown setting since 0.2, write batches, which",
        ),
        ("distill: {}", "run.yaml: distill.student: missing"),
        ("retrieve: {k: many}", "run.yaml: retrieve.k: 'many': input should be a valid integer"),
        ("rerank: {window: 21}", "run.yaml: rerank.window: 21: input should be less than or equal to 20"),
        ("candidates: rankgpt:x.json", "corpus, queries, candidates: give corpus and queries, or candidates alone"),
        ("train_queries:", "run.yaml: train_queries: missing"),
        ("annotate: {teacher: 'teacher:x.jsonl'}", "run.yaml: train_queries: teacher:x.jsonl brings its own queries"),
        ("index: [", "run.yaml: line"),
        ("corpus: ''", "run.yaml: corpus: empty, as an unset variable"),
        (
            "distill: {student: demo, learning_rate: .inf}",
            "run.yaml: distill.learning_rate: inf: input should be a fin",
        ),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, change, said):
    key = change.partition(":")[0]
    text = "".join(line + "\n" for line in SOUND.splitlines() if not line.startswith(f"{key}:")) + change + "\n"
    with pytest.raises(BadInput, match=re.escape(said)) as error:
        load(tmp_path, text)
    assert "\n" not in str(error.value)


def test_recorded_annotations_are_no_row_of_the_table(tmp_path):
    text = SOUND.replace("train_queries: demo#train\n", "").replace("{teacher: demo}", "{teacher: 'teacher:x.jsonl'}")
    said = "run.yaml: teacher_row: teacher:x.jsonl cannot be asked about other queries; leave teacher_row out"
    with pytest.raises(BadInput, match=re.escape(said)):
        load(tmp_path, text + "teacher_row: true\n")


# A run file with each of these mistakes was once accepted, and failed hours later in its own stage.
LATE = {
    "distill: {student: demo, pairwise: 0, listwise: 0, generation: 0}": "distill.pairwise, listwise, generation, ",
    "distill: {student: demo, epochs: 3, steps: 100}": "distill.epochs: 3: steps are given, too (100); give one of",
    "distill: {student: demo, patience: 3, held_out: 0}": "distill.patience: 3: no query is held out to measure on",
    "distill: {student: demo, min_workers: 3}": "distill.min_workers: 3: more than the 2 workers",
    "distill: {student: demo, workers: 9}": "distill.workers: 9: more than the 2 batches of a step",
    "annotate: {teacher: demo, max_cost: 5}": "annotate.max_cost: needs prices to count with",
    "annotate: {teacher: demo, min_actors: 2}": "annotate.min_actors: 2: more than the 1 actors",
    "rerank: {window: 5, stride: 6}": "rerank.stride: 6: more than the window of 5",
    "rerank: {strategy: parallel, stride: 6}": "rerank.stride: 6: is of a sliding window; leave it out, or set",
    "rerank: {window: 5, explain: 6}": "rerank.explain: 6: more than the window of 5",
    "rerank: {mode: generate, order_position: last}": "rerank.mode: generate: writes the order first",
    "annotate: {teacher: demo, reasoning: direct}": "distill.reasoning: both: the teacher gives direct",
    "annotate: {teacher: 'replies:x.jsonl'}": "distill.reasoning: both: replies:x.jsonl gives an order alone; write",
    "annotate: {teacher: demo, reasoning: none}\ndistill: {student: demo, reasoning: none}\njudge: {keep: 0.2}": (
        "judge.keep: 0.2: the teacher gives no reasons to judge; leave keep out"
    ),
    "distill: {student: demo, order_position: last}\nrerank: {order_position: first}": "rerank.order_position: first: ",
    "distill: {student: demo, reasoning: none}\nrerank: {explain: 3}": "rerank.explain: 3: distill teaches no reasons",
    "annotate: {teacher: demo, passages: 21}": "annotate.passages: 21: distill learns from 20 a query at most",
    "annotate: {teacher: demo, passages: 9, depth: 8}": "annotate.depth: 8: less than the 9 passages",
    "annotate: {teacher: demo, depth: 101}": "annotate.depth: 101: retrieve finds only 100 a query; raise retrieve.k",
    "annotate: {teacher: demo, window: 4, stride: 5}": "annotate.stride: 5: more than the window of 4",
    "annotate: {teacher: 'replies:x.jsonl', draws: 2}": "annotate.draws: replies:x.jsonl was recorded without this",
    "evaluate: {measures: [nDGC@10]}": "evaluate.measures: 'nDGC@10': unknown measure",
    "evaluate: {measures: nDCG@10 RR(rel=x)}": "evaluate.measures: 'RR(rel=x)': ",
    "runs: {bm25: other.txt}": "runs: bm25: a run file makes the row bm25 itself; give the run another name",
    "runs: {oracle: other.txt}": "runs: oracle: a run file makes the row oracle itself",
}


@pytest.mark.parametrize(("change", "said"), LATE.items())
def test_a_mistake_in_any_stage_ends_the_run_before_the_first_and_touches_nothing(tmp_path, capfd, change, said):
    keys = ("out:", *(f"{line.partition(':')[0]}:" for line in change.splitlines()))
    lines = [line for line in SOUND.splitlines() if not line.startswith(keys)]
    file, out = tmp_path / "run.yaml", tmp_path / "out"
    file.write_text("\n".join([*lines, f"out: {out}", change]) + "\n")
    for more in ([], ["--dry-run"]):
        assert main(["run", str(file), *more]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"r2r: {file}: {said}")
    assert not out.exists()


def test_no_model_library_is_loaded_to_find_a_mistake(tmp_path):
    # That would take most of the time until a user is told.
    text = SOUND + "evaluate: {measures: [nDGC@10]}\n"
    (tmp_path / "run.yaml").write_text(text)
    script = (
        "import sys; from r2r.cli import main; status = main(['run', 'run.yaml']); "
        "print(status, sorted({'torch', 'transformers', 'vllm', 'ray'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env=ENV)
    assert done.stdout == "2 []\n", done


@pytest.mark.parametrize(("section", "name"), [(s, n) for s, model in SECTIONS.items() for n in model.model_fields])
def test_every_setting_says_what_it_is(section, name):
    assert SECTIONS[section].model_fields[name].description


def test_changes_override_a_run_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(SOUND.replace("{student: demo}", "{student: demo, steps: 7, batch: 1}") + "rerank: {}\n")
    run = load_run_file(str(file), {"out": "elsewhere", "distill": {"steps": "9"}, "rerank": {"window": 10}})
    assert (run.out, run.distill.steps, run.distill.batch, run.rerank.window) == ("elsewhere", 9, 1, 10)
    with pytest.raises(BadInput, match=r"run.yaml: distill.steps: 'x': input should be a valid integer"):
        load_run_file(str(file), {"distill": {"steps": "x"}})


def test_run_files_ship_with_the_package_under_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_run_file("demo") == load_run_file(str(CONFIGS / "demo.yaml"))


def test_measures_are_separated_by_spaces_or_commas_outside_parentheses():
    for given in ("nDCG@10 SetF(beta=0.5,rel=2)", "nDCG@10,SetF(beta=0.5,rel=2)", ["nDCG@10", "SetF(beta=0.5,rel=2)"]):
        assert config.EvaluateSettings(measures=given).measures == ["nDCG@10", "SetF(beta=0.5,rel=2)"]


def test_a_run_file_judges_reasons_and_keeps_the_sound_ones(tmp_path):
    rows = "teacher_row: true\njudge_reasons: true\njudge: {keep: 0.2, planted: 0.3}\nrerank: {explain: 3}\n"
    stages = {one.out.name: one for one in stages_of(load(tmp_path, SOUND + rows))}
    assert stages["judge-annotate"].inputs["rankings"].source == "runs/x/annotate"
    assert stages["judge-annotate"].settings.keep == 0.2 and "kept/annotations" in stages["judge-annotate"].writes
    assert stages["distill"].inputs["annotations"].source == "runs/x/judge-annotate/kept"
    sources = {name: put.source for name, put in stages["judge"].inputs.items()}
    assert sources == {
        "rankings": "runs/x/rerank",
        "candidates": "runs/x/retrieve",
        "against teacher": "runs/x/annotate-test",
    }
    assert stages["judge"].settings.keep is None and stages["judge"].settings.planted == 0.3
    with pytest.raises(BadInput, match=r"judge_reasons: rerank\.explain is 0"):
        load(tmp_path, SOUND + "judge_reasons: true\n")


def test_the_systems_of_a_run_file_in_the_order_of_the_table(tmp_path):
    rows = "zero_shot: true\nteacher_row: true\nruns: {dense: dense.txt}\nrerank: {explain: 3}\n"
    stages = list(stages_of(load(tmp_path, SOUND + rows)))
    evaluate = stages[-1]
    systems = {name.split(" ", 2)[2]: put.source for name, put in evaluate.inputs.items() if name.startswith("run ")}
    assert list(systems.items()) == [
        ("bm25", "runs/x/retrieve/run.txt"),
        ("zero-shot", "runs/x/rerank-zero-shot/run.txt"),
        ("student", "runs/x/rerank/run.txt"),
        ("teacher", "runs/x/annotate-test"),
        ("dense", "dense.txt"),
    ]
    learned, tested = (one for one in stages if one.name == "annotate")
    assert (learned.inputs["candidates"].source, str(learned.out)) == ("runs/x/retrieve-train", "runs/x/annotate")
    assert (tested.inputs["candidates"].source, str(tested.out)) == ("runs/x/retrieve", "runs/x/annotate-test")
    assert learned.settings == tested.settings
    plain, student = (one for one in stages if one.name == "rerank")
    assert "adapter" not in plain.inputs and plain.settings.explain == 0
    assert student.inputs["adapter"].source == "runs/x/distill" and student.settings.explain == 3
    # Without an adapter there is no record: the window is that of the annotations that the student learns from.
    assert (plain.settings.window, student.settings.window) == (5, None)


def test_no_further_system_unless_it_is_asked_for(tmp_path):
    stages = list(stages_of(load(tmp_path, SOUND)))
    assert [name for name in stages[-1].inputs if name.startswith("run ")] == ["run 1 bm25", "run 2 student"]
    assert [one.name for one in stages].count("annotate") == 1


@pytest.mark.parametrize("name", sorted(file.stem for file in CONFIGS.glob("*.yaml")))
def test_a_run_file_that_was_written_out_in_full_says_the_same(tmp_path, name):
    run = load_run_file(str(CONFIGS / f"{name}.yaml"))
    assert load(tmp_path, yaml.safe_dump(run.model_dump(mode="json"))) == run


def test_a_run_file_that_is_not_there_is_named():
    with pytest.raises(BadInput, match=r"no-run\.yaml: no such file"):
        load_run_file("no-run.yaml")


def test_a_run_file_that_holds_no_settings_is_named(tmp_path):
    with pytest.raises(BadInput, match="holds no settings"):
        load(tmp_path, "hello\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [("out: a\nout: b\n", "line 2 .*out"), ("a: 1\ndistill: {steps: 1, steps: 2}\n", "line 2 .*steps")],
)
def test_a_setting_that_comes_twice_in_a_run_file_is_named(tmp_path, text, said):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(BadInput, match=rf"run\.yaml: {said} stands twice"):
        load_run_file(str(tmp_path / "run.yaml"))
