"""What identifies an input: its content, and only that of the files it reads.

.venv/bin/python -m pytest tests/datasets/test_fingerprint.py
"""

import json
import shutil

import pytest

from r2r import builtin, identity, tables
from r2r.datasets import fingerprint
from r2r.errors import BadInput

KINDS = ("corpus", "queries", "qrels")
LAYOUTS = {
    "beir": {
        "corpus": "corpus.jsonl",
        "queries": "queries.jsonl",
        "qrels": "qrels/dev.tsv",
        "other split": "qrels/train.tsv",
    },
    "msmarco": {
        "corpus": "collection.tsv",
        "queries": "queries.dev.tsv",
        "qrels": "qrels.dev.tsv",
        "other split": "qrels.train.tsv",
    },
}


@pytest.fixture(params=LAYOUTS)
def scheme(request):
    return request.param


@pytest.fixture
def folder(scheme, tmp_path):
    return write(scheme, tmp_path / "first", {name: f"old {name}" for name in KINDS})


def write(scheme, folder, contents):
    for name, content in contents.items():
        file = folder / LAYOUTS[scheme][name]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


def known(scheme, folder):
    return {kind: fingerprint(f"{scheme}:{folder}#dev", kind) for kind in KINDS}


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ("corpus", {"corpus"}),
        ("queries", {"queries"}),
        ("qrels", {"queries", "qrels"}),
        ("other split", set()),
    ],
)
def test_only_the_files_that_a_kind_reads_count(scheme, folder, changed, kinds):
    before = known(scheme, folder)
    after = known(scheme, write(scheme, folder, {changed: "new"}))
    assert {kind for kind in KINDS if before[kind] != after[kind]} == kinds


def test_a_copy_elsewhere_is_the_same_input(scheme, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "second")
    before = known(scheme, folder)
    assert known(scheme, tmp_path / "second") == known(scheme, f"file://{folder}") == before
    assert all(one.startswith("sha256:") for one in before.values())


def test_all_splits_have_one_corpus_and_queries_of_their_own(scheme, folder):
    shutil.copy(folder / LAYOUTS[scheme]["queries"], folder / "queries.train.tsv")
    write(scheme, folder, {"other split": "new"})
    for kind, same in {"corpus": True, "queries": False, "qrels": False}.items():
        dev, train = (fingerprint(f"{scheme}:{folder}#{split}", kind) for split in ("dev", "train"))
        assert (dev == train) == same


def test_queries_without_qrels(scheme, folder):
    (folder / LAYOUTS[scheme]["qrels"]).unlink()
    if scheme == "beir":
        (folder / "qrels").rmdir()
    assert fingerprint(f"{scheme}:{folder}#dev", "queries").startswith("sha256:")
    with pytest.raises(BadInput, match=r"qrels[/.]dev.tsv"):
        fingerprint(f"{scheme}:{folder}#dev", "qrels")


def test_a_file_counts_by_its_content_and_the_fields_that_are_read(tmp_path):
    for name, text in {"a.jsonl": "{}", "b.jsonl": "{}", "c.jsonl": "{ }"}.items():
        (tmp_path / name).write_text(text)
    one, same, other = (fingerprint(f"jsonl:{tmp_path}/{name}.jsonl", "corpus") for name in "abc")
    assert one == same != other
    assert fingerprint(f"jsonl:{tmp_path}/a.jsonl#docid=id", "corpus") != one
    assert fingerprint(str(tmp_path / "a.jsonl"), "qrels") == fingerprint(str(tmp_path / "b.jsonl"), "qrels")


def test_a_stage_folder_counts_by_its_rows(tmp_path):
    row = {"qid": "q", "query": "who", "docids": ["d"], "texts": ["t"], "scores": [1.0]}
    other = row | {"qid": "r"}
    for folder, parts in {"one": [[row, other]], "two": [[other], [row]], "three": [[row]]}.items():
        for number, rows in enumerate(parts):
            tables.write_part(rows, tmp_path / folder, "candidates", f"part-{number}")
    one, two, three = (fingerprint(str(tmp_path / folder), "candidates") for folder in ("one", "two", "three"))
    # Neither the files nor the order of the rows matter.
    assert one == two != three
    (tmp_path / "one" / "stats.json").write_text("{}")
    assert fingerprint(str(tmp_path / "one"), "candidates") == one


def test_a_finished_stage_folder_counts_by_the_content_in_its_manifest(tmp_path):
    tables.write([{"qid": "q"}], tmp_path, "candidates")
    size = (tmp_path / "candidates" / "part-00000.parquet").stat().st_size
    manifest = {"identity": "x", "content": "rows:7", "files": {"candidates/part-00000.parquet": size}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert fingerprint(str(tmp_path), "candidates") == "rows:7"
    # A table that was changed since then counts as it is.
    tables.write([{"qid": "q", "query": "longer"}], tmp_path, "candidates")
    assert fingerprint(str(tmp_path), "candidates") == tables.content_of(tmp_path, "candidates")


def test_of_the_built_in_world_only_what_is_read_counts():
    before = {split: fingerprint(f"demo#{split}", "queries") for split in ("test", "train", "train500")}
    assert len(set(before.values())) == 3
    assert fingerprint("demo", "queries") == before["test"]
    assert fingerprint("demo#test", "corpus") == fingerprint("demo#train", "corpus")


def test_a_name_that_is_not_local_stands_for_itself():
    assert fingerprint("irds:beir/fiqa/test", "queries") == "irds:beir/fiqa/test"
    assert identity.fingerprint(builtin.model("some/model", "student")) == "some/model"


def test_a_built_in_model_counts_by_its_files():
    teacher, student = (identity.fingerprint(builtin.model("demo", role)) for role in ("teacher", "student"))
    assert teacher.startswith("sha256:") and student.startswith("sha256:") and teacher != student


@pytest.mark.parametrize(("spec", "kind"), [("beir:x", "candidates"), ("plain", "corpus"), ("demo:here", "qrels")])
def test_a_string_that_names_no_such_input_is_refused(spec, kind):
    with pytest.raises(BadInput, match=f"^{spec}: .* for {kind}; known here: "):
        fingerprint(spec, kind)
