"""Run files: what is right is read with its types, what is wrong is named with its file and setting."""

import re
from pathlib import Path

import pytest

from r2r.config import BadInput, load_run_file

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
    assert distill.workers * distill.batch * distill.accumulate == examples
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


def test_a_run_file_that_is_not_there_is_named():
    with pytest.raises(BadInput, match=r"no-run\.yaml: no such file"):
        load_run_file("no-run.yaml")


def test_a_run_file_that_holds_no_settings_is_named(tmp_path):
    with pytest.raises(BadInput, match="holds no settings"):
        load(tmp_path, "hello\n")
