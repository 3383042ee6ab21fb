"""The stage as a whole: metrics.json, its rows and warnings, bad input, and published figures on real data."""

import csv
import gzip
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r2r import cli, tables
from r2r.config import EvaluateSettings, validate
from r2r.errors import BadInput
from r2r.evaluation.evaluate import evaluate, parse_runs
from r2r.evaluation.runs import shuffled
from tests.ending import terminate

NDCG = EvaluateSettings(measures=["nDCG@10"])


@pytest.fixture
def files(tmp_path):
    """Qrels for q1 to q3 and two runs that lack q3; returns a function from a name to its path."""
    texts = {
        "qrels.txt": "q1 0 a 2\nq1 0 b 0\nq2 0 a 1\nq3 0 a 1\n",
        "bm25.txt": "q1 Q0 b 1 9 t\nq1 Q0 a 2 8 t\nq2 Q0 a 1 9 t\nq2 Q0 b 2 8 t\nelse Q0 a 1 1 t\n",
        "student.txt": "q1 Q0 a 1 9 t\nq1 Q0 b 2 8 t\nq2 Q0 b 1 9 t\nq2 Q0 a 2 8 t\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return lambda name: str(tmp_path / name)


def run(files, settings=NDCG, runs=("bm25", "student"), out="out", **more):
    evaluate(files("qrels.txt"), {name: files(f"{name}.txt") for name in runs}, files(out), settings, **more)
    return json.loads(Path(files(out), "metrics.json").read_text())


def test_metrics_are_the_mean_over_all_judged_queries(files, capsys):
    metrics = run(files, EvaluateSettings(measures=["nDCG@10", "RR(rel=2)@10"]))
    second = 1 / math.log2(3)
    assert list(metrics) == ["measures", "queries", "systems", "tests"]
    assert metrics["measures"] == ["nDCG@10", "RR(rel=2)@10"]
    assert metrics["queries"] == 3
    assert list(metrics["systems"]) == ["bm25", "student", "random", "oracle"]
    assert metrics["systems"]["bm25"]["nDCG@10"] == pytest.approx((second + 1 + 0) / 3)
    assert metrics["systems"]["student"]["nDCG@10"] == pytest.approx((1 + second + 0) / 3)
    assert metrics["systems"]["oracle"]["nDCG@10"] == pytest.approx(2 / 3)
    assert 2 * second / 3 <= metrics["systems"]["random"]["nDCG@10"] <= 2 / 3
    assert metrics["systems"]["bm25"]["RR(rel=2)@10"] == pytest.approx(1 / 6)
    out, err = capsys.readouterr()
    assert "run bm25 lacks 1 of 3 judged queries; they count 0" in err
    table = out.split("-> " + files("out"))[1].strip().splitlines()
    assert table[0].split() == ["system", "nDCG@10", "RR(rel=2)@10"]
    assert [line.split()[0] for line in table[1:5]] == ["bm25", "student", "random", "oracle"]
    assert len({len(line) for line in table[:5]}) == 1
    assert table[5].startswith("no run differs significantly from bm25: p < 0.05 ")
    assert table[6] == f"report: {Path(files('out')) / 'report.html'}"


def per_query(files, out="out"):
    """Return measure -> (system, qid) -> value, and the columns."""
    with Path(files(out), "per_query.csv").open(encoding="utf-8", newline="") as text:
        columns, *lines = csv.reader(text)
    rows = [dict(zip(columns, line, strict=True)) for line in lines]
    return {name: {(row["system"], row["qid"]): float(row[name]) for row in rows} for name in columns[2:]}, columns


def test_values_of_each_query_are_beside_the_means(files):
    settings = EvaluateSettings(measures=["nDCG@10", "SetF(beta=0.5,rel=2)"])
    metrics = run(files, settings)
    values, columns = per_query(files)
    assert columns == ["system", "qid", "nDCG@10", "SetF(beta=0.5,rel=2)"]
    systems = ["bm25", "student", "random", "oracle"]
    assert list(values["nDCG@10"]) == [(system, qid) for system in systems for qid in ("q1", "q2", "q3")]
    assert values["nDCG@10"]["student", "q2"] == 1 / math.log2(3) and values["nDCG@10"]["student", "q3"] == 0
    for name, row in metrics["systems"].items():
        for measure, mean in row.items():
            assert mean == pytest.approx(sum(values[measure][name, qid] for qid in ("q1", "q2", "q3")) / 3)


def test_others_are_tested_against_the_first_run_or_the_one_named(files):
    tests = run(files, NDCG)["tests"]
    assert (tests["baseline"], list(tests["systems"])) == ("bm25", ["student"])
    second = 1 / math.log2(3)
    assert tests["systems"]["student"]["nDCG@10"] == pytest.approx(
        {"difference": 0, "low": second - 1, "high": 1 - second, "p_t": 1, "p_permutation": 1, "p_holm": 1}, abs=0.2
    )
    named = run(files, EvaluateSettings(measures=["nDCG@10"], baseline="student"))
    assert (named["tests"]["baseline"], list(named["tests"]["systems"])) == ("student", ["bm25"])
    page = Path(files("out"), "report.html").read_text()
    assert "Query by query, against student" in page and "Before and after: bm25 → student" in page
    assert run(files, runs=["bm25"])["tests"] == {"baseline": "bm25", "systems": {}}


@pytest.mark.parametrize("name", ["bm52", "random"])
def test_baseline_that_is_no_run(files, name):
    settings = EvaluateSettings(measures=["nDCG@10"], baseline=name)
    refused(files, f"baseline: {name}: no run has this name; give one of bm25", settings=settings)
    # Told before anything is written.
    assert not Path(files("out")).exists()


def test_share_of_documents_with_a_judgement(files):
    Path(files("student.txt")).write_text("q1 Q0 a 1 9 t\nq1 Q0 z 2 8 t\n")
    assert "Judged@10" in EvaluateSettings().measures
    metrics = run(files, EvaluateSettings(measures=["Judged@10"]))
    # bm25: a and b of q1, a of two for q2, nothing for q3.
    assert metrics["systems"]["bm25"]["Judged@10"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert metrics["systems"]["student"]["Judged@10"] == pytest.approx((1 / 2) / 3)
    assert metrics["systems"]["random"] == metrics["systems"]["oracle"] == metrics["systems"]["bm25"]
    assert "Judged@10 is the share of a run's first documents" in Path(files("out"), "report.html").read_text()


def test_a_training_is_in_the_report(files):
    loss = {"pairwise": 0.7, "listwise": 0.3, "generation": 5.0}
    tables.write([{"step": 1, "tokens": 10, "seconds": 0.1, "loss": loss}], files("distill"), "steps")
    run(files, distill=files("distill"))
    assert "Training of the student" in Path(files("out"), "report.html").read_text()


def test_random_is_the_mean_of_ten_shuffles_of_the_first_run(files):
    qids, docids = [f"q{number}" for number in range(200)], [f"d{number}" for number in range(50)]
    Path(files("qrels.txt")).write_text("".join(f"{qid} 0 d0 1\n" for qid in qids))
    Path(files("bm25.txt")).write_text(
        "".join(f"{qid} Q0 {docid} 0 {-rank} t\n" for qid in qids for rank, docid in enumerate(docids))
    )
    Path(files("student.txt")).write_text("".join(f"{qid} Q0 d1 1 1 t\n" for qid in qids))
    systems = run(files, EvaluateSettings(measures=["P@1", "RR"]))["systems"]
    orders = [shuffled(dict.fromkeys(qids, docids), seed) for seed in range(10)]
    hits = sum(order[qid][0] == "d0" for order in orders for qid in qids)
    assert systems["random"]["P@1"] == pytest.approx(hits / 2000)
    assert hits / 2000 == pytest.approx(1 / 50, abs=0.01)
    assert systems["random"]["RR"] == pytest.approx(sum(1 / rank for rank in range(1, 51)) / 50, abs=0.015)
    assert systems["oracle"] == {"P@1": 1, "RR": 1}


def test_run_with_other_documents_is_measured_and_said(files, capsys):
    Path(files("student.txt")).write_text("q1 Q0 a 1 9 t\nq2 Q0 z 1 9 t\nq3 Q0 a 1 1 t\n")
    systems = run(files)["systems"]
    assert systems["student"]["nDCG@10"] == pytest.approx(2 / 3)
    err = capsys.readouterr().err
    assert "run student lists documents that run bm25 does not, in 2 of 3 judged queries" in err
    assert "run student lists documents" in Path(files("out"), "report.html").read_text()


def test_run_with_fewer_documents_is_no_warning(files, capsys):
    Path(files("student.txt")).write_text("q1 Q0 a 1 9 t\nq2 Q0 a 1 9 t\n")
    run(files)
    assert "lists documents" not in capsys.readouterr().err


def test_finished_stage_is_not_run_again_until_something_changes(files, capsys):
    run(files)
    first = Path(files("out"), "report.html").stat().st_mtime_ns
    capsys.readouterr()
    run(files)
    assert "done already" in capsys.readouterr().out
    assert Path(files("out"), "report.html").stat().st_mtime_ns == first
    assert next(iter(run(files, runs=["student", "bm25"])["systems"])) == "student"
    assert run(files, EvaluateSettings(measures=["AP"]))["measures"] == ["AP"]


def test_explanations_reach_the_report_and_the_manifest(files, capsys):
    texts = ["Nothing here.", "A passage with <script>alert(1)</script> in it."]
    query = {"qid": "q1", "query": "what?"}
    tables.write(
        [query | {"docids": ["b", "a"], "texts": texts, "scores": [9.0, 8.0]}], files("retrieve"), "candidates"
    )
    explained = {"direct": ["Answers."], "evidence": ["A passage  with"], "comparison": ["Before b."]}
    ranking = query | {"docids": ["a", "b"], "scores": [9.0, 8.0]} | explained
    tables.write([ranking], files("rerank"), "rankings")
    metrics = run(
        files,
        candidates=files("retrieve"),
        rankings=files("rerank"),
        settings=NDCG.model_copy(update={"caption": "A test."}),
    )
    assert list(metrics) == ["measures", "queries", "systems", "tests"]
    manifest = json.loads(Path(files("out"), "manifest.json").read_text())
    checks = {"explained": 1, "evidence_empty": 0, "evidence_verbatim": 1, "compared": 1, "neighbours": 0}
    assert manifest["explanations"] == checks
    assert list(manifest["files"]) == ["metrics.json", "per_query.csv", "report.html"]
    html = Path(files("out"), "report.html").read_text()
    assert "<mark>A passage with</mark> &lt;script&gt;alert(1)" in html and "<script" not in html
    assert "A test." in html and "what?" in html and "Before b." in html
    assert "explanations: 1 written" in capsys.readouterr().out


def test_what_rerank_left_out_counts_as_wrong(files):
    query = {"qid": "q1", "query": "what?", "docids": ["a", "b"], "scores": [9.0, 8.0]}
    tables.write([query | {"texts": ["A passage.", "Nothing."]}], files("retrieve"), "candidates")
    explained = {"direct": ["Answers.", "No."], "evidence": ["A passage.", ""], "comparison": ["Above [b].", ""]}
    tables.write([query | explained], files("rerank"), "rankings")
    manifest = {"identity": "x", "content": "x", "files": {}, "dropped": {"evidence": 3, "comparisons": 1}}
    Path(files("rerank"), "manifest.json").write_text(json.dumps(manifest))
    run(files, candidates=files("retrieve"), rankings=files("rerank"))
    checks = json.loads(Path(files("out"), "manifest.json").read_text())["explanations"]
    assert checks["evidence_verbatim"] == 1 / 4
    assert (checks["compared"], checks["neighbours"]) == (2, 1 / 2)


def annotated(files, *orders):
    """Write annotations of (qid, docids, ranking) as the teacher's folder; return its path."""
    row = {name: [] for name in ("texts", "direct", "evidence", "comparison")} | {"query": "what?"}
    rows = [row | {"qid": qid, "docids": docids, "ranking": ranking} for qid, docids, ranking in orders]
    tables.write(rows, files("teacher"), "annotations")
    return files("teacher")


def with_teacher(files, *orders):
    """Return the mean reciprocal rank of the teacher, beside bm25."""
    runs = {"bm25": files("bm25.txt"), "teacher": annotated(files, *orders)}
    evaluate(files("qrels.txt"), runs, files("out"), EvaluateSettings(measures=["RR"]))
    return json.loads(Path(files("out"), "metrics.json").read_text())["systems"]["teacher"]["RR"]


@pytest.mark.parametrize(("ranking", "place"), [([1, 2, 3], 3), ([2, 3, 1], 2), ([3, 1, 2], 1)])
def test_annotations_are_a_run_in_the_teachers_order(files, capsys, ranking, place):
    Path(files("qrels.txt")).write_text("q1 0 a 1\n")
    Path(files("bm25.txt")).write_text("".join(f"q1 Q0 {docid} 0 {score} t\n" for score, docid in enumerate("abc")))
    assert with_teacher(files, ("q1", ["c", "b", "a"], ranking)) == pytest.approx(1 / place)
    assert "warning" not in capsys.readouterr().err


def test_what_the_teacher_did_not_see_follows_as_in_the_first_run(files, capsys):
    Path(files("qrels.txt")).write_text("q1 0 e 1\n")
    Path(files("bm25.txt")).write_text("".join(f"q1 Q0 {docid} 0 {-at} t\n" for at, docid in enumerate("abcdef")))
    assert with_teacher(files, ("q1", ["b", "f"], [2, 1])) == pytest.approx(1 / 6)
    assert "warning" not in capsys.readouterr().err


def test_queries_without_annotation_keep_the_order_of_the_first_run(files, capsys):
    # q2 is a reject; q3, which the first run lacks, has no order to keep.
    assert with_teacher(files, ("q1", ["b", "a"], [2, 1])) == pytest.approx((1 + 1 + 0) / 3)
    said = "run teacher has no annotation for 1 of 3 judged queries; they keep the order of bm25"
    err = capsys.readouterr().err
    assert f"evaluate: warning: {said}" in err and "run teacher lacks 1 of 3 judged queries" in err
    assert said in Path(files("out"), "report.html").read_text()


def test_ids_of_annotations_are_as_in_runs(files):
    Path(files("qrels.txt")).write_text("q%201 0 doc%20a 1\n")
    Path(files("bm25.txt")).write_text("q%201 Q0 doc%20b 1 2 t\nq%201 Q0 doc%20a 2 1 t\n")
    assert with_teacher(files, ("q 1", ["doc b", "doc a"], [2, 1])) == 1


def refused(files, says, **changed):
    given = {"qrels": files("qrels.txt"), "runs": {"bm25": files("bm25.txt")}, "out": files("out"), "settings": NDCG}
    with pytest.raises(BadInput) as error:
        evaluate(**given | changed)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not Path(files("out"), "manifest.json").exists()


def test_missing_run_file(files):
    refused(files, f"{files('no.txt')}: no such file; run bm25 needs a TREC run", runs={"bm25": files("no.txt")})


def test_folder_for_a_run_file(files):
    refused(files, ": is a folder; run bm25 needs a TREC run file", runs={"bm25": str(Path(files("bm25.txt")).parent)})


def test_annotations_cannot_be_the_first_run(files):
    teacher = annotated(files, ("q1", ["a"], [1]))
    refused(files, f"run teacher={teacher}: annotations order only what the teacher saw", runs={"teacher": teacher})


def test_several_annotations_of_a_query_are_no_run(files):
    teacher = annotated(files, ("q1", ["a"], [1]), ("q1", ["b"], [1]))
    runs = {"bm25": files("bm25.txt"), "teacher": teacher}
    refused(files, f"{teacher}: qid q1 has 2 annotations; a run needs one a query", runs=runs)


def test_annotations_that_are_rejects_alone(files):
    runs = {"bm25": files("bm25.txt"), "teacher": annotated(files)}
    refused(files, f"{files('teacher')}: holds no annotations; a run has at least one query", runs=runs)


@pytest.mark.parametrize("name", ["random", "oracle"])
def test_name_that_is_taken(files, name):
    refused(files, f"the name {name} stands for the", runs={name: files("bm25.txt")})


def test_no_run(files):
    refused(files, "runs: none given", runs={})


def test_malformed_line(files):
    Path(files("bm25.txt")).write_text("q1 Q0 a 1 9 t\nq1 a 8\n")
    refused(files, f"{files('bm25.txt')}:2: has 3 columns")


def test_qrels_for_other_queries(files):
    Path(files("bm25.txt")).write_text("x7 Q0 a 1 9 t\n")
    other = f"{files('bm25.txt')}: none of its queries is judged in {files('qrels.txt')}: the run has query 'x7', "
    refused(files, other + "the qrels have 'q1'; give the qrels for the run's own queries")


def test_unknown_measure(files, capsys):
    with pytest.raises(BadInput, match=r"^run\.yaml: measures: 'nDCX@10': unknown measure; [^\n]*$"):
        validate(EvaluateSettings, {"measures": ["nDCX@10"]}, "run.yaml")
    given = ["--qrels", files("qrels.txt"), "--run", f"bm25={files('bm25.txt')}", "--out", files("out")]
    assert cli.main(["evaluate", *given, "--measures", "nDCX@10"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("r2r: evaluate: measures: 'nDCX@10': unknown measure; ")
    assert not Path(files("out")).exists()


@pytest.mark.parametrize(
    ("qrels", "run_file", "says"),
    [
        pytest.param(
            *("q1 0 D12 1\nq1 0 D13 0\nq1 0 a 1\n", "q1 Q0 12 1 9 t\nq1 Q0 a 2 8 t\nq1 Q0 14 3 7 t\n"),
            "run bm25 lists 1 documents without a judgement whose ids differ in form only from judged ones, such as 12 "
            "here and D12 in QRELS; write them alike",
            id="some documents",
        ),
        pytest.param(
            *("q1 0 0012 1\nq1 0 0013 0\n", "q1 Q0 12 1 9 t\nq1 Q0 13 2 8 t\n"),
            "run bm25 lists 2 documents without a judgement whose ids differ in form only from judged ones, such as ",
            id="all documents",
        ),
        pytest.param(
            *("q1 0 a 1\n", "q1 Q0 x 1 9 t\n"),
            "run bm25 lists no document that QRELS judges, so most measures are 0: it has x, the qrels have a; ",
            id="documents of another collection",
        ),
        pytest.param(
            *("q1 0 a 1\nQ02 0 a 1\n", "q1 Q0 a 1 9 t\n2 Q0 a 1 9 t\nx Q0 a 1 9 t\n"),
            "run bm25 has 2 queries that QRELS does not judge; they play no part; some ids differ in form only, such "
            "as 2 here and Q02 there",
            id="some queries",
        ),
        pytest.param(
            *("q1 0 a 99\nq1 0 b -7\n", "q1 Q0 a 1 9 t\n"),
            "QRELS has grades from -7 to 99; nDCG takes a grade as the gain that it is",
            id="unusual grades",
        ),
        pytest.param(
            *("q1 0 a 0\nq1 0 b -1\n", "q1 Q0 a 1 9 t\n"),
            "QRELS has no grade above 0, so no document is relevant and most measures are 0",
            id="nothing relevant",
        ),
    ],
)
def test_qrels_that_fit_in_part_are_said_in_one_line(files, capsys, qrels, run_file, says):
    Path(files("qrels.txt")).write_text(qrels)
    Path(files("bm25.txt")).write_text(run_file)
    run(files, runs=["bm25"])
    told = [line for line in capsys.readouterr().err.splitlines() if " lacks " not in line]
    assert len(told) == 1
    assert told[0].startswith(f"evaluate: warning: {says.replace('QRELS', files('qrels.txt'))}")


def test_ids_that_end_in_the_same_number_are_not_taken_for_one_another(files, capsys):
    Path(files("qrels.txt")).write_text("q1 0 furnace-1 1\nq1 0 pump-2 0\nq1 0 D3x4 1\nq1 0 112 1\n")
    Path(files("bm25.txt")).write_text("".join(f"q1 Q0 {one} 1 9 t\n" for one in ("pump-1", "pump-2", "34", "12")))
    run(files, runs=["bm25"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ("q 1\ta%20b\t1", "the documents 'a b' and 'a%20b' are both a%20b in a run; rename one"),
        ("q%201\tc\t1", "the queries 'q 1' and 'q%201' are both q%201 in a run; rename one"),
    ],
)
def test_two_ids_that_are_one_in_a_run(files, tmp_path, second, says):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\nq 1\ta b\t1\n{second}\n")
    refused(files, f"beir:{tmp_path}: {says}", qrels=f"beir:{tmp_path}")


def test_empty_qrels(files):
    Path(files("qrels.txt")).write_text("")
    refused(files, files("qrels.txt"))


def test_folder_without_its_table(files):
    refused(files, "holds no candidates table", candidates=files("none"))
    refused(files, "holds no rankings table", rankings=files("none"))
    refused(files, "holds no steps table", distill=files("none"))


@pytest.mark.parametrize("name", ["bm25.txt", "bm25.txt.gz"])
@pytest.mark.parametrize("system", ["", "file://"])
def test_runs_may_be_gzipped_and_on_other_file_systems(files, name, system):
    plain = run(files, runs=["bm25"])
    Path(files("bm25.txt.gz")).write_bytes(gzip.compress(Path(files("bm25.txt")).read_bytes()))
    given = ["--qrels", files("qrels.txt"), "--run", f"bm25={system}{files(name)}", "--out", files("other")]
    assert cli.main(["evaluate", *given, "--measures", "nDCG@10"]) == 0
    assert json.loads(Path(files("other"), "metrics.json").read_text()) == plain


def test_missing_file_on_another_file_system(files):
    run(files, runs=["bm25"])
    missing = f"file://{files('no.txt.gz')}"
    with pytest.raises(BadInput) as error:
        evaluate(files("qrels.txt"), {"bm25": missing}, files("out"), NDCG)
    assert str(error.value).startswith(f"{missing}: no such file or directory; run bm25 needs a TREC run file")
    assert Path(files("out"), "manifest.json").exists()


def test_a_process_that_is_terminated_says_so_and_leaves_no_result(files, tmp_path):
    # So many lines that it reads them for seconds; the folder is made before the first is read.
    Path(files("bm25.txt")).write_text("".join(f"q{at} Q0 a {at} 1 t\n" for at in range(400_000)))
    given = ["--qrels", files("qrels.txt"), "--run", f"bm25={files('bm25.txt')}", "--out", files("out")]
    log = tmp_path / "log"
    with log.open("wb") as both:
        command = [sys.executable, "-m", "r2r", "evaluate", *given]
        process = subprocess.Popen(command, stdout=both, stderr=both, start_new_session=True)
    while not Path(files("out")).exists():
        assert process.poll() is None, log.read_text()
        time.sleep(0.01)
    terminate(process, log)
    assert process.returncode == 143
    assert list(Path(files("out")).iterdir()) == []


def test_missing_candidates_file(files):
    refused(files, "none.json: no such file", runs={"bm25": "rankgpt:none.json"})
    refused(files, "none.json: no such file", candidates="rankgpt:none.json")


def test_run_names_on_the_command_line():
    assert parse_runs(["bm25=a/run.txt", "x=b=c.txt"]) == {"bm25": "a/run.txt", "x": "b=c.txt"}
    for pairs, says in [
        (["bm25=a", "bm25=b"], "run 'bm25=b': the name bm25 is given twice; give each a name of its own"),
        (["a/run.txt"], "run 'a/run.txt': expected NAME=FILE"),
        (["=a"], "expected NAME=FILE"),
    ]:
        with pytest.raises(BadInput) as error:
            parse_runs(pairs)
        assert says in str(error.value)


@pytest.fixture
def data():
    if "R2R_DATA_DIR" not in os.environ:
        pytest.skip("R2R_DATA_DIR is not set: published figures are checked on the data it names")
    return Path(os.environ["R2R_DATA_DIR"])


def test_published_figures_on_dl19(data, tmp_path):
    lists = json.loads((data / "msmarco-dl19" / "bm25-top100.json").read_text())
    rows = [
        {
            "qid": str(entry["hits"][0]["qid"]),
            "docids": [hit["docid"] for hit in entry["hits"]],
            "scores": [hit["score"] for hit in entry["hits"]],
        }
        for entry in lists
    ]
    tables.write_run(rows, tmp_path / "bm25.txt", "bm25")
    runs = {"bm25": str(tmp_path / "bm25.txt"), "rankvicuna": str(data / "msmarco-dl19" / "rankvicuna.run.txt")}
    names = ["nDCG@10", "AP(rel=2)", "R(rel=2)@100"]
    evaluate(str(data / "msmarco-dl19" / "qrels.txt"), runs, str(tmp_path), EvaluateSettings(measures=names))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    systems = metrics["systems"]
    assert metrics["queries"] == 43
    assert round(systems["bm25"]["nDCG@10"], 4) == 0.5058
    assert round(systems["rankvicuna"]["nDCG@10"], 4) == 0.6682
    assert systems["random"]["nDCG@10"] < systems["bm25"]["nDCG@10"] < systems["oracle"]["nDCG@10"]
    assert len({round(row["R(rel=2)@100"], 9) for row in systems.values()}) == 1
    # RankVicuna against BM25: the interval and both tests say that it is better; it found no more documents.
    tests = metrics["tests"]["systems"]["rankvicuna"]
    better, same = tests["nDCG@10"], tests["R(rel=2)@100"]
    assert better["difference"] == pytest.approx(0.1623, abs=5e-5)
    assert (better["low"], better["high"]) == pytest.approx((0.114, 0.215), abs=0.003)
    assert better["p_t"] == pytest.approx(1.877e-7, rel=1e-3) and better["p_permutation"] == 1 / 10_001
    assert better["p_holm"] == pytest.approx(3 / 10_001)
    assert same == {"difference": 0, "low": 0, "high": 0, "p_t": 1, "p_permutation": 1, "p_holm": 1}


def test_values_of_each_query_are_those_of_ir_measures(data, tmp_path):
    import ir_measures

    qrels, run = data / "msmarco-dl19" / "qrels.txt", data / "msmarco-dl19" / "rankvicuna.run.txt"
    names = ["nDCG@10", "nDCG@5", "RR(rel=2)@10", "AP(rel=2)", "R(rel=2)@100", "Judged@10"]
    evaluate(str(qrels), {"rankvicuna": str(run)}, str(tmp_path), EvaluateSettings(measures=names))
    ours, _ = per_query(lambda name: tmp_path, "")
    measures = [ir_measures.parse_measure(name) for name in names]
    judged, given = ir_measures.read_trec_qrels(str(qrels)), ir_measures.read_trec_run(str(run))
    theirs = {name: {} for name in names}
    for found in ir_measures.iter_calc(measures, judged, given):
        theirs[names[measures.index(found.measure)]]["rankvicuna", found.query_id] = found.value
    assert {name: {at: one for at, one in row.items() if at[0] == "rankvicuna"} for name, row in ours.items()} == theirs
    assert {len(row) for row in ours.values()} == {3 * 43}


def test_published_figure_on_bright_biology(data, tmp_path):
    folder = data / "bright-biology"
    evaluate(str(folder / "qrels.txt"), {"reasonir": str(folder / "reasonir_gpt4cot_top100.txt")}, str(tmp_path), NDCG)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert round(metrics["systems"]["reasonir"]["nDCG@10"], 4) == 0.4349


def test_ids_with_white_space_meet_in_runs_and_qrels(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq 1\tdoc a\t1\nq 1\tdoc b\t0\n")
    row = {"qid": "q 1", "query": "q", "docids": ["doc b", "doc a"], "texts": ["x", "y"], "scores": [2.0, 1.0]}
    tables.write([row], tmp_path, "candidates")
    tables.write_run([row], tmp_path / "run.txt", "t")
    evaluate(f"beir:{tmp_path}", {"bm25": str(tmp_path / "run.txt")}, str(tmp_path / "out"), NDCG, str(tmp_path))
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["systems"]["bm25"]["nDCG@10"] == pytest.approx(1 / math.log2(3))
