"""Run files: what is right is read with its types, what is wrong is named with its file and setting; which systems a
run file puts into the table."""

import re
from pathlib import Path

import pytest

from r2r.config import load_run_file
from r2r.errors import BadInput
from r2r.pipeline import run

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
    assert (run.rerank.explain, run.rerank.window, run.rerank.engine) == (3, 20, {"dtype": "float32"})
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
        ("distill: {}", "run.yaml: distill.student: missing"),
        ("retrieve: {k: many}", "run.yaml: retrieve.k: 'many': input should be a valid integer"),
        ("rerank: {window: 21}", "run.yaml: rerank.window: 21: input should be less than or equal to 20"),
        ("candidates: rankgpt:x.json", "corpus, queries, candidates: give corpus and queries, or candidates alone"),
        ("train_queries:", "run.yaml: train_queries: missing"),
        ("annotate: {teacher: 'teacher:x.jsonl'}", "run.yaml: train_queries: teacher:x.jsonl brings its own queries"),
        ("index: [", "run.yaml: line"),
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


@pytest.fixture
def stages(monkeypatch):
    """The calls of the stages, as (name, arguments), in their order; none of them runs."""
    called = []
    for where in (
        "bm25.index.build_index",
        "bm25.retrieve.retrieve",
        "teacher.annotate.annotate",
        "student.distill.distill",
        "student.rerank.rerank",
        "evaluation.evaluate.evaluate",
    ):
        name = where.rpartition(".")[2]
        monkeypatch.setattr(f"r2r.{where}", lambda *given, name=name: called.append((name, given)))
    return called


def test_the_systems_of_a_run_file_in_the_order_of_the_table(tmp_path, stages):
    rows = "zero_shot: true\nteacher_row: true\nruns: {dense: dense.txt}\nrerank: {explain: 3}\n"
    (tmp_path / "run.yaml").write_text(SOUND + rows)
    run(str(tmp_path / "run.yaml"))
    _, (_, systems, *_) = stages[-1]
    assert list(systems.items()) == [
        ("bm25", "runs/x/retrieve/run.txt"),
        ("zero-shot", "runs/x/rerank-zero-shot/run.txt"),
        ("student", "runs/x/rerank/run.txt"),
        ("teacher", "runs/x/annotate-test"),
        ("dense", "dense.txt"),
    ]
    learned, tested = (given for name, given in stages if name == "annotate")
    assert learned[:2] == ("runs/x/retrieve-train", "runs/x/annotate")
    assert tested == ("runs/x/retrieve", "runs/x/annotate-test", learned[2])
    plain, student = (given for name, given in stages if name == "rerank")
    assert (plain[2], plain[4].explain) == (None, 0)
    assert (student[2], student[4].explain) == ("runs/x/distill", 3)


def test_no_further_system_unless_it_is_asked_for(tmp_path, stages):
    (tmp_path / "run.yaml").write_text(SOUND)
    run(str(tmp_path / "run.yaml"))
    assert list(stages[-1][1][1]) == ["bm25", "student"]
    assert [name for name, _ in stages].count("annotate") == 1


def test_a_run_file_that_is_not_there_is_named():
    with pytest.raises(BadInput, match=r"no-run\.yaml: no such file"):
        load_run_file("no-run.yaml")


def test_a_run_file_that_holds_no_settings_is_named(tmp_path):
    with pytest.raises(BadInput, match="holds no settings"):
        load(tmp_path, "hello\n")
