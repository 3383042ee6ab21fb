"""Candidates from runs of any first stage: the stage, the `run:` string, and the run file."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r2r import cli, datasets, pipeline, tables
from r2r.config import RetrieveSettings, RunFile
from r2r.datasets import joined
from r2r.datasets.runs import RunSpec
from r2r.errors import BadInput
from r2r.firststage import retrieve_runs

DOCUMENTS = {
    "d1": ("A title", "one"),
    "d2": ("", "two"),
    "a b": ("", "spaced"),
    "d\u2003": ("", "wide"),
    "d5": ("", ""),
}
QUERIES = {"q2": "second", "q1": "first", "q 3": "third", "q4": "no line"}
RUN = """q1 Q0 d1 9 1.5 x
q2 Q0 d1 1 1 x
q1 Q0 d2 1 2.5 x
q1 Q0 d5 1 1.5 x
q%203 Q0 a%20b 1 7 x
q1 Q0 d\u2003 1 1.5 x
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: a collection in BEIR's layout, and a run over it."""
    monkeypatch.chdir(tmp_path)
    rows = [{"_id": docid, "title": title, "text": text} for docid, (title, text) in DOCUMENTS.items()]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"_id": qid, "text": query} for qid, query in QUERIES.items()]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run").write_text(RUN)
    return tmp_path


def retrieve(*files: str, out: str = "out", **settings) -> list[dict]:
    retrieve_runs(RunSpec(list(files), "beir:.", "beir:."), out, RetrieveSettings(**settings))
    return tables.read(out, "candidates").to_pylist()


def test_a_run_becomes_candidates(folder, capsys):
    rows = retrieve("run")
    assert rows == [
        {"qid": "q2", "query": "second", "docids": ["d1"], "texts": ["A title\none"], "scores": [1.0]},
        {
            **{"qid": "q1", "query": "first", "docids": ["d2", "d\u2003", "d5", "d1"]},
            **{"texts": ["two", "wide", "", "A title\none"], "scores": [2.5, 1.5, 1.5, 1.5]},
        },
        {"qid": "q 3", "query": "third", "docids": ["a b"], "texts": ["spaced"], "scores": [7.0]},
    ]
    assert (folder / "out" / "run.txt").read_text().splitlines()[3] == "q1 Q0 d5 3 1.5 first-stage"
    (reject,) = tables.read("out", "rejects").to_pylist()
    assert (reject["qid"], reject["reason"]) == ("q4", "no run has a line for it")
    assert "run: warning: 1 of 4 queries have no candidates: q4" in capsys.readouterr().err
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert (manifest["documents"], manifest["rows"]) == (6, {"candidates": 3, "rejects": 1})
    # What is left of the work goes.
    assert {file.name for file in (folder / "out").iterdir()} == {"candidates", "rejects", "run.txt", "manifest.json"}
    retrieve("run")
    assert "done already" in capsys.readouterr().out


def test_its_own_run_file_gives_the_same_candidates(folder):
    lines = "".join(f"q1 Q0 d{number} 1 {score} x\n" for number, score in ((1, 0.1), (2, 1 / 3), (5, 16777217)))
    (folder / "run").write_text(lines)
    rows = retrieve("run")
    assert rows[0]["scores"] == [16777216.0, 0.3333333432674408, 0.10000000149011612]
    assert retrieve("out/run.txt", out="again") == rows


def test_files_of_candidates_are_small(folder, monkeypatch):
    whole = retrieve("run")
    for name, limit in (("_QUERIES_PER_FILE", 2), ("_CHARACTERS_PER_FILE", 3)):
        with monkeypatch.context() as patched:
            patched.setattr(joined, name, limit)
            assert retrieve("run", out=name) == whole
        assert len(tables.files(name, "candidates")) > 1


def test_depth_is_cut_in_the_order_of_scores(folder):
    assert retrieve("run", k=2)[1]["docids"] == ["d2", "d\u2003"]


def test_several_runs_are_fused(folder):
    (folder / "other.json").write_text('{"q1": {"d5": 3, "d1": 2}, "q4": {"d2": 1}}')
    rows = {row["qid"]: row for row in retrieve("run", "other.json")}
    # Ranks of run: d2, d-wide, d5, d1; of other: d5, d1.
    assert rows["q1"]["docids"] == ["d5", "d1", "d2", "d\u2003"]
    assert rows["q1"]["scores"][0] == pytest.approx(1 / 63 + 1 / 61)
    assert rows["q4"]["scores"] == pytest.approx([1 / 61])
    spec = "run:run+other.json#corpus=beir:.,queries=beir:."
    assert datasets.read_candidates(spec).to_pylist() == list(rows.values())


def test_excluded_documents_are_left_out_before_the_cut(folder, monkeypatch):
    examples = {
        "id": ["q1"],
        "query": ["first"],
        "excluded_ids": [["d2", "d\u2003", "elsewhere"]],
        "gold_ids": [["d1"]],
    }
    columns = {"id": list(DOCUMENTS), "content": [text for _, text in DOCUMENTS.values()]}
    for kind, table in {"documents": columns, "examples": examples}.items():
        (folder / kind).mkdir()
        pq.write_table(pa.table(table), folder / kind / "pony-00000-of-00001.parquet")
    monkeypatch.setenv("BRIGHT_DIR", str(folder))
    retrieve_runs(RunSpec(["run"], "bright:pony", "bright:pony"), "out", RetrieveSettings(k=2))
    (row,) = tables.read("out", "candidates").to_pylist()
    assert row["docids"] == ["d5", "d1"]
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert (manifest["excluded"], manifest["unknown_queries"]) == (2, 2)


def test_a_document_with_the_querys_id_is_left_out_where_that_is_asked_for(folder):
    (folder / "run").write_text(
        "q2 Q0 d1 1 1 x\nq1 Q0 q1 1 9 x\nq1 Q0 d1 1 1 x\nq%203 Q0 q%203 1 2 x\nq%203 Q0 d2 1 1 x\n"
    )
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.writelines(json.dumps({"_id": docid, "text": "asked"}) + "\n" for docid in ("q1", "q 3"))
    assert [row["docids"][0] for row in retrieve("run", k=1)] == ["d1", "q1", "q 3"]
    assert [row["docids"] for row in retrieve("run", k=1, remove_query=True)] == [["d1"], ["d1"], ["d2"]]


def test_what_the_corpus_lacks_is_counted_and_named(folder, capsys):
    (folder / "run").write_text(RUN + "q1 Q0 lost 1 9 x\nq4 Q0 gone 1 9 x\nq9 Q0 d1 1 1 x\n")
    with pytest.raises(BadInput) as error:
        retrieve("run")
    assert str(error.value) == (
        "run: 2 of its 7 documents are not in beir:.: gone, lost; give the corpus that the run ranked (max_missing "
        "allows 1.0% to be missing)"
    )
    assert {file.name for file in (folder / "out").iterdir()} == set()
    capsys.readouterr()
    assert retrieve("run", max_missing=0.3)[1]["docids"] == ["d2", "d\u2003", "d5", "d1"]
    assert capsys.readouterr().err.count("warning") == 3
    rejects = {row["qid"]: row["reason"] for row in tables.read("out", "rejects").to_pylist()}
    assert rejects == {"q4": "none of its documents is left"}
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert (manifest["missing_documents"], manifest["unknown_queries"]) == (2, 1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (RUN + "q1 Q0 d1 1 9 x\n", "run:7: document d1 stands twice in query q1; a run lists it once a query"),
        ('{"q1": {"d1": 1, "d1": 2}}', "run: query number 1: document d1 stands twice in query q1"),
        ("x Q0 d1 1 9 x\n", "run: none of its queries is in beir:.: the run has query 'x', the queries have 'q2'"),
        (RUN + "q1 Q0 d1 1 9\n", "run:7: has 5 columns"),
    ],
)
def test_a_broken_run(folder, lines, message):
    (folder / "run").write_text(lines)
    with pytest.raises(BadInput) as error:
        retrieve("run")
    assert str(error.value).startswith(message)


def test_ids_in_messages_are_short_and_printable(folder):
    (folder / "run").write_text(f"q1 Q0 {'x' * 5000} 1 9 t\nq1 Q0 d\0\x1b[31m 2 8 t\n")
    with pytest.raises(BadInput) as error:
        retrieve("run")
    assert f"d\\x00\\x1b[31m, {'x' * 80}...; give the corpus" in str(error.value)


def test_a_wanted_document_that_comes_twice(folder):
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "other", "text": "x"}\n{"_id": "other", "text": "x"}\n{"_id": "d2", "text": "again"}\n')
    with pytest.raises(BadInput) as error:
        retrieve("run")
    again = "docid d2 again, first in ./corpus.jsonl:2; each document has its own id"
    assert str(error.value) == f"./corpus.jsonl:8: {again}"


def test_settings_of_bm25_and_a_run_given_twice(folder):
    with pytest.raises(BadInput, match="k1: belongs to BM25, and a run brings its own scores"):
        retrieve("run", k1=1.2)
    with pytest.raises(BadInput, match="run: given twice"):
        retrieve("run", "run")
    with pytest.raises(BadInput, match="none: no such file"):
        retrieve("none")
    assert not (folder / "out").exists()


def test_the_command(folder, capsys):
    words = ["retrieve", "--queries", "beir:.", "--out", "out", "--k", "1"]
    (folder / "more,run").write_text(RUN)
    assert cli.main([*words, "--corpus", "beir:.", "--run", "run", "--run", "more,none"]) == 2
    # Repeated flags arrive as one text with commas.
    assert "more: no such file" in capsys.readouterr().err
    assert cli.main([*words, "--corpus", "beir:.", "--run", "more,run"]) == 0
    assert tables.read("out", "candidates")["docids"].to_pylist() == [["d1"], ["d2"], ["a b"]]
    for wrong in (["--run", "run"], ["--run", "run", "--corpus", "beir:.", "--index", "x"], ["--corpus", "beir:."], []):
        assert cli.main([*words, *wrong]) == 2
        assert "give --" in capsys.readouterr().err


def test_a_run_string_is_joined_once_into_its_folder(folder, monkeypatch):
    spec = "run:run#corpus=beir:.,queries=beir:.,k=2"
    found = datasets.open_candidates(spec, folder / "aside")
    assert found.qids == ["q2", "q1", "q 3"]
    assert [len(row["docids"]) for part in found.parts(9) for _, row in part.read()] == [1, 2, 1]
    with monkeypatch.context() as patched:
        patched.setattr(joined, "join", None)
        assert datasets.open_candidates(spec, folder / "aside").qids == found.qids
    (folder / "run").write_text("q1 Q0 d1 1 1 x\n")
    assert datasets.open_candidates(spec, folder / "aside").qids == ["q1"]
    assert len(list((folder / "aside").iterdir())) == 1


def test_a_plan_reads_no_run(folder, monkeypatch):
    spec = "run:run#corpus=beir:.,queries=beir:."
    monkeypatch.setattr(joined, "join", None)
    datasets.check(spec, "candidates")
    before = datasets.fingerprint(spec, "candidates")
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "other"}\n')
    assert datasets.fingerprint(spec, "candidates") != before
    with pytest.raises(BadInput, match="none: no such folder"):
        datasets.check("run:run#corpus=beir:none,queries=beir:.", "candidates")
    with pytest.raises(BadInput, match="none: holds no finished index"):
        datasets.check("run:run#index=none,queries=beir:.", "candidates")


def test_a_run_file_makes_the_candidates_once(folder):
    settings = RunFile(
        out="x",
        candidates="run:run#corpus=beir:.,queries=beir:.",
        qrels="demo",
        annotate={"teacher": "teacher:x"},
        distill={"student": "demo"},
        zero_shot=True,
    )
    stages = {one.out.name: one for one in pipeline.stages_of(settings)}
    assert list(stages) == ["retrieve", "annotate", "distill", "rerank-zero-shot", "rerank", "evaluate"]
    assert stages["rerank"].inputs["candidates"].source == "x/retrieve"
    assert stages["evaluate"].inputs["run 1 first-stage"].source == "x/retrieve/run.txt"
