"""Many collections in one run file: their stages, the suites, what a change repeats, and what a failure leaves."""

import json
import re
from pathlib import Path

import ir_datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r2r import cli, pipeline, suites
from r2r.config import EvaluateSettings, Evaluation, RunFile, load_run_file
from r2r.datasets import bright
from r2r.errors import BadInput, Stopped
from r2r.evaluation import evaluate
from r2r.stage import Result, Stage, plan, run
from tests.test_stage import BASE, stubbed

CONFIGS = Path(__file__).parents[1] / "jobs" / "configs"


def collection(folder: Path, text: str = "fleas") -> None:
    """Write a collection in BEIR's layout: two documents, and a query that has one's id."""
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": "1", "title": "", "text": text}, {"_id": "2", "title": "", "text": f"more {text}"}]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "1", "text": text}) + "\n")
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n1\t2\t{len(text)}\n")


def named(name: str, spec: str | None = None, **more) -> dict:
    spec = spec or f"beir:{name}"
    return {"name": name, "corpus": spec, "queries": spec, "qrels": spec, **more}


# One shares the training corpus; two share another, with other queries.
THREE = [named("world", "demo"), named("a"), named("b") | {"corpus": "beir:a"}]


def settings(*evaluations: dict, **more) -> RunFile:
    return RunFile(**{**BASE, "evaluations": list(evaluations), **more})


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        collection(tmp_path / name, name * (1 + (name == "c")))
    return tmp_path


@pytest.fixture
def finished(here):
    """The folder of a run with three evaluations, whose stages are all done."""
    for one in stubbed(settings(*THREE)):
        run(one)
    assert runs_again(settings(*THREE)) == []
    return here / "run"


def runs_again(run_file: RunFile) -> list[str]:
    return [str(found.stage.out.relative_to("run")) for found in plan(stubbed(run_file)) if found.why]


def test_one_student_is_measured_on_all_collections(here):
    found = [str(one.out.relative_to("run")) for one in pipeline.stages_of(settings(*THREE))]
    ranked = ["retrieve", "rerank-zero-shot", "rerank", "annotate-test", "evaluate"]
    training = ["index", "queries", "retrieve", "retrieve-train", "annotate", "distill"]
    assert found == [
        *training,
        *ranked[1:],
        *(f"evaluations/world/{name}" for name in ranked),
        *(f"evaluations/a/{name}" for name in ["index", *ranked]),
        *(f"evaluations/b/{name}" for name in ranked),
    ]
    stages = {str(one.out.relative_to("run")): one for one in pipeline.stages_of(settings(*THREE))}
    for name, index in {"world": "run/index", "a": "run/evaluations/a/index", "b": "run/evaluations/a/index"}.items():
        assert stages[f"evaluations/{name}/retrieve"].inputs["index"].source == index
        rerank = stages[f"evaluations/{name}/rerank"].inputs
        assert rerank["adapter"].source == "run/distill"
        assert rerank["candidates"].source == f"run/evaluations/{name}/retrieve"


def test_a_collection_taken_out_and_added_again_costs_nothing(finished):
    world, a, b = THREE
    # b's index lies in the folder of a, which is not in the list.
    for left in ([world, a], [world, b], [b, world], [a, b], [b], THREE[::-1]):
        assert runs_again(settings(*left)) == []
    assert runs_again(settings(*THREE)) == []
    # Another collection under a's name takes a's folder; b then has an index of its own.
    assert set(runs_again(settings(world, named("a", "beir:c"), b))) > {"evaluations/a/index", "evaluations/b/index"}


def test_a_collection_added_later_repeats_no_other(finished):
    again = runs_again(settings(*THREE, named("c")))
    assert again == [f"evaluations/c/{name}" for name in ["index", "retrieve", "rerank-zero-shot", "rerank"]] + [
        f"evaluations/c/{name}" for name in ("annotate-test", "evaluate")
    ]


def test_the_place_of_a_corpus_does_not_count(finished):
    (finished.parent / "a").rename(finished.parent / "moved")
    moved = named("a", "beir:moved")
    assert runs_again(settings(THREE[0], moved, THREE[2] | {"corpus": "beir:moved"})) == []


AFTER = ["retrieve", "rerank-zero-shot", "rerank", "annotate-test", "evaluate"]
# Setting of an evaluation -> another value, and the stages that it repeats. A name is another folder.
CHANGES = {
    "corpus": ("beir:c", ["index", *AFTER]),
    "queries": ("beir:c", AFTER),
    "qrels": ("beir:c", ["evaluate"]),
    "candidates": (None, []),
    "run": ("a.run", AFTER),
    "k": (7, AFTER),
    "analyzer": ("none", ["index", *AFTER]),
    "remove_query": (True, AFTER),
    "language": ("German", ["rerank-zero-shot", "rerank", "annotate-test", "evaluate"]),
    "measures": (["AP"], ["evaluate"]),
    "runs": ({"published": "a.run"}, ["evaluate"]),
    "group": ("two", []),
}


@pytest.mark.parametrize("name", sorted(Evaluation.model_fields.keys() - {"name"}))
def test_a_setting_of_an_evaluation_repeats_its_own_stages(finished, name):
    Path("a.run").write_text("1 Q0 2 1 1.0 x\n")
    value, repeated = CHANGES[name]
    changed = settings(THREE[0], THREE[1] | {name: value})
    assert runs_again(changed) == [f"evaluations/a/{stage}" for stage in repeated]


def test_the_run_file_needs_no_collection_of_its_own(here):
    plain = {key: value for key, value in BASE.items() if key not in ("queries", "qrels")}
    found = [str(one.out.relative_to("run")) for one in pipeline.stages_of(RunFile(**plain, evaluations=[named("a")]))]
    assert found[:6] == ["index", "queries", "retrieve-train", "annotate", "distill", "evaluations/a/index"]
    assert "evaluate" not in found


RECORDED = {"out": "run", "annotate": {"teacher": "teacher:x.jsonl"}, "distill": {"student": "demo"}}
MISTAKES = {
    "evaluations: [{name: a, corpus: 'beir:a', queries: 'beir:a'}]": "evaluations: a: qrels: missing",
    "evaluations: [{name: a, qrels: 'beir:a', corpus: 'beir:a'}]": "evaluations: a: give corpus and queries, or cand",
    "evaluations: [{name: ../a, qrels: x}]": "evaluations.0.name: '../a': string should match pattern",
    "evaluations: [{name: a, colour: blue}]": "evaluations.0.colour: unknown setting; known here: name, corpus",
    "evaluations: [{name: a, measures: nDGC@10}]": "evaluations.0.measures: 'nDGC@10': unknown measure",
    "evaluations: [{name: main, candidates: c, qrels: q}]": "evaluations: main: the name of another row",
    "evaluations: [{name: a, candidates: c, qrels: q}, {name: a}]": "evaluations: a: given twice",
    "evaluations: [{name: a, candidates: c, qrels: q, runs: {bm25: x}}]": "evaluations: a: runs: bm25: that row",
    "evaluations: [{name: a, candidates: c, qrels: q, run: x}]": "evaluations: a: run: candidates are given, too",
    "evaluations: [{name: a, candidates: c, qrels: q, k: 9}]": "evaluations: a: k: another first stage made the cand",
    "evaluations: [{name: a, corpus: c, queries: c, qrels: q, run: r, analyzer: de}]": "evaluations: a: analyzer: ano",
    "suite: beir-9": "suite: beir-9: no such suite; known here: beir-8, beir-13",
    "suite: beir-8": "suite: signal1m: ir_datasets does not have it; name a folder with BEIR's collections in data",
    "suite: [beir-13]\nwithout: scifcat": "without: scifcat: in no suite here",
    "suite: bright-12\ndata: x": "data: holds BEIR's collections, and no suite of BEIR is asked for",
    "suite: bright-12\nquoted: [{system: x, source: y, figures: {biology: 45.2}}]": "quoted.0.figures.biology: 45.2: ",
    "suite: bright-12\nquoted: [{system: x, source: y, figures: {bio: .4}}]": "quoted: x: bio: no collection here",
    "suite: bright-12\nquoted: [{system: x, source: y, measure: RR, figures: {}}]": "quoted: x: RR: not in evaluate.m",
    "queries: demo\nsuite: bright-12": "qrels: missing; queries and candidates of the run file itself",
    "evaluations: []": "qrels: missing; nothing can be measured",
}


@pytest.mark.parametrize(("change", "said"), MISTAKES.items())
def test_a_mistake_is_told_in_one_line_before_anything_runs(tmp_path, capfd, change, said):
    file, out = tmp_path / "run.yaml", tmp_path / "out"
    values = "\n".join(f"{name}: {json.dumps(value)}" for name, value in (RECORDED | {"out": str(out)}).items())
    file.write_text(f"{values}\n{change}\n")
    assert cli.main(["run", str(file)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"r2r: {file}: {said}")
    assert not out.exists()


def test_what_the_last_collection_lacks_ends_the_plan(here, capfd):
    Path("run.yaml").write_text(json.dumps({**BASE, "evaluations": [*THREE, named("d")]}))
    for more in ([], ["--dry-run"]):
        assert cli.main(["run", "run.yaml", *more]) == 2
        assert capfd.readouterr().err == (
            "r2r: d: no such folder; expected corpus.jsonl, queries.jsonl and qrels/ in it\n"
        )
    assert not Path("run").exists()


def test_the_lists_of_the_field():
    assert {name: len(found) for name, found in suites.SUITES.items()} == {
        **{"beir-8": 8, "beir-13": 13, "beir-18": 18, "bright-12": 12, "dl19-dl23": 5}
    }
    assert set(suites.SUITES["beir-8"]) - set(suites.SUITES["beir-13"]) == {"signal1m", "trec-news", "robust04"}
    assert set(suites.SUITES["beir-18"]) - set(suites.SUITES["beir-13"]) == {
        *("signal1m", "trec-news", "robust04", "bioasq", "cqadupstack")
    }
    assert suites.SUITES["bright-12"] == bright._TASKS
    assert len(suites.members("beir-18", None)) == 17 + 12


@pytest.mark.parametrize("suite", ["beir-18", "dl19-dl23"])
def test_ir_datasets_has_what_a_suite_takes_from_it(suite):
    for name, values in suites.members(suite, None).items():
        if name in ("signal1m", "trec-news", "robust04", "bioasq"):
            assert "corpus" not in values
            continue
        for kind, has in {"corpus": "docs", "queries": "queries", "qrels": "qrels"}.items():
            assert ir_datasets.load(values[kind].removeprefix("irds:")).has(has), (name, kind)


def test_an_evaluation_adds_to_a_suite(here):
    more = [{"name": "scifact", "runs": {"published": "x.run"}, "k": 20}, {"name": "nq", "candidates": "c"}]
    own = named("mine", "demo", group="ours")
    found = settings(*more, own, suite="beir-18", data="d", without=["fiqa"])
    by_name = {one.name: one for one in found.collections()}
    assert len(by_name) == 17 + 12 - 1 + 1 and "fiqa" not in by_name
    scifact = by_name["scifact"]
    assert (scifact.corpus, scifact.k, scifact.runs) == ("beir:d/scifact", 20, {"published": "x.run"})
    assert (by_name["nq"].corpus, by_name["nq"].candidates, by_name["nq"].qrels) == (None, "c", "beir:d/nq")
    assert by_name["cqadupstack-tex"].corpus == "beir:d/cqadupstack/tex"
    assert all(one.remove_query for one in found.collections() if one.name not in ("mine", "nq"))
    assert by_name["nq"].remove_query is None
    averages = found.averages()
    assert list(averages) == ["cqadupstack", "ours", "beir-18", "average"]
    assert len(averages["cqadupstack"]) == 12 and averages["ours"] == ["mine"]
    # As BEIR reports it: the forums count as one, and what was left out is still asked for.
    assert averages["beir-18"] == list(suites.SUITES["beir-18"])
    assert averages["average"][0] == "main" and {"ours", "cqadupstack"} < set(averages["average"])


def test_a_group_can_be_left_out_and_suites_alone_need_no_average_over_all(here):
    found = RunFile(**RECORDED, suite="beir-18 bright-12", data="d", without=["cqadupstack", "pony"])
    assert len(found.left_out()) == 13 and len(found.collections()) == 17 + 11
    assert list(found.averages()) == ["cqadupstack", "beir-18", "bright-12"]


@pytest.mark.parametrize(
    ("suite", "folders"),
    [
        ("beir-8", suites.SUITES["beir-8"]),
        ("beir-13", suites.SUITES["beir-13"]),
        ("beir-18", [*suites.SUITES["beir-18"][:11], *suites.SUITES["beir-18"][12:]]),
        ("bright-12", []),
        ("dl19-dl23", []),
    ],
)
def test_the_plan_of_a_suite_over_local_collections(here, monkeypatch, capfd, suite, folders):
    for name in folders:
        collection(here / "data" / name)
    if suite == "beir-18":
        for forum in suites._FORUMS:
            collection(here / "data" / "cqadupstack" / forum)
    for task in bright._TASKS:
        for kind in ("documents", "examples"):
            (here / kind).mkdir(exist_ok=True)
            pq.write_table(pa.table({"id": ["1"]}), here / kind / f"{task}-00000-of-00001.parquet")
    monkeypatch.setenv("BRIGHT_DIR", str(here))
    recorded = {"docids": ["a"], "query": "q"}
    Path("x.jsonl").write_text(json.dumps(recorded) + "\n")
    monkeypatch.setattr("r2r.datasets.teacher.annotations", lambda file: ([], []))
    flags = ["--suite", suite, "--annotate.teacher", "teacher:x.jsonl", "--distill.student", "demo", "--dry-run"]
    flags += ["--data", "data"] if folders else []
    file = here / "run.yaml"
    text = (CONFIGS / "suites.yaml").read_text()
    file.write_text(text if folders else text.replace("data: data/beir\n", ""))
    assert cli.main(["run", str(file), *flags]) == 0, capfd.readouterr().err
    out = capfd.readouterr().out
    names = set(re.findall(r"^evaluations/(\S+)/evaluate ", out, re.MULTILINE))
    assert names == set(suites.members(suite, "data"))
    assert not Path("runs").exists()


def test_bright_without_its_files_is_told_before_anything_runs(here, monkeypatch, capfd):
    monkeypatch.setenv("BRIGHT_DIR", str(here))
    Path("run.yaml").write_text(json.dumps({**BASE, "suite": "bright-12"}))
    assert cli.main(["run", "run.yaml"]) == 2
    assert re.fullmatch(r"r2r: bright:biology: no documents/biology-\*\.parquet in .*\n", capfd.readouterr().err)


def parts(tmp_path, monkeypatch, **stages: list[Stage]) -> RunFile:
    """Let a run have these stages a collection, and no training; return its run file's settings."""
    evaluations = [{"name": name, "candidates": "c", "qrels": "q"} for name in stages]
    found = RunFile(
        **RECORDED | {"out": str(tmp_path / "run")}, evaluations=evaluations, evaluate={"measures": ["nDCG@10"]}
    )
    monkeypatch.setattr(pipeline, "stages_by_collection", lambda settings: {"": [], **stages})
    monkeypatch.setattr(cli.config, "load_run_file", lambda file, values: found)
    return found


def measured(tmp_path, name: str, run_lines: str = "1 Q0 2 1 1.0 x\n") -> Stage:
    """Return an evaluate stage over files of its own."""
    (tmp_path / f"{name}.qrels").write_text("1 0 2 1\n")
    (tmp_path / f"{name}.run").write_text(run_lines)
    files = {"bm25": str(tmp_path / f"{name}.run")}
    out = tmp_path / "run" / "evaluations" / name / "evaluate"
    return evaluate.stage(str(tmp_path / f"{name}.qrels"), files, out, EvaluateSettings(measures=["nDCG@10"]))


def test_a_collection_that_fails_spares_the_others_and_is_named(tmp_path, monkeypatch, capfd):
    first, bad, last = (measured(tmp_path, name) for name in ("first", "bad", "last"))
    (tmp_path / "bad.qrels").write_text("1 0 2 1\nhello\n")
    parts(tmp_path, monkeypatch, first=[first], bad=[bad], last=[last])
    assert cli.main(["run", "x"]) == 2
    said = capfd.readouterr()
    told = f"r2r: evaluations: 1 of 3 collections failed, the others are done: bad: {tmp_path}/bad.qrels:2: "
    assert said.err.splitlines()[-1].startswith(told)
    assert re.search(r"^last +1\.0000", said.out, re.MULTILINE) and re.search(r"^bad +-", said.out, re.MULTILINE)
    found = json.loads((tmp_path / "run" / "evaluations" / "summary.json").read_text())
    assert found["collections"]["bad"]["missing"].startswith(f"failed: {tmp_path}/bad.qrels:2: ")
    assert found["averages"]["average"]["systems"]["bm25"] == {"nDCG@10": None}

    (tmp_path / "bad.qrels").write_text("1 0 2 0\n1 0 3 1\n")
    assert cli.main(["run", "x"]) == 0
    said = capfd.readouterr()
    assert said.out.count("done already") == 2 and "failed" not in said.err
    found = json.loads((tmp_path / "run" / "evaluations" / "summary.json").read_text())
    assert found["averages"]["average"]["systems"]["bm25"] == {"nDCG@10": pytest.approx(2 / 3)}


def test_figures_of_an_earlier_run_do_not_stand_for_a_failed_one(tmp_path, monkeypatch, capfd):
    one, other = measured(tmp_path, "one"), measured(tmp_path, "other")
    parts(tmp_path, monkeypatch, one=[one], other=[other])
    assert cli.main(["run", "x"]) == 0
    (tmp_path / "one.qrels").write_text("hello\n")
    assert cli.main(["run", "x"]) == 2
    found = json.loads((tmp_path / "run" / "evaluations" / "summary.json").read_text())
    assert "systems" not in found["collections"]["one"] and found["collections"]["other"]["systems"]


@pytest.mark.parametrize(
    ("error", "status"), [(BadInput("bad"), 2), (Stopped("stopped"), 3), (KeyboardInterrupt(), 130)]
)
def test_how_a_run_ends_whose_shared_stage_failed(tmp_path, monkeypatch, capfd, error, status):
    tries = []

    def work(identity):
        tries.append(identity)
        raise error

    shared = Stage("x", tmp_path / "x", EvaluateSettings(), {}, lambda there: None, work, [])
    parts(tmp_path, monkeypatch, a=[shared], b=[shared], c=[measured(tmp_path, "c")])
    assert cli.main(["run", "x"]) == status
    assert len(tries) == 1
    # Who ends the job ends all of it.
    assert (tmp_path / "run" / "evaluations" / "c").exists() == (status != 130)


def test_an_error_of_ours_is_not_hidden_and_spares_the_others(tmp_path, monkeypatch, capfd):
    def work(identity) -> Result:
        return Result({}, str(1 // 0))

    bug = Stage("x", tmp_path / "x", EvaluateSettings(), {}, lambda there: None, work, [])
    parts(tmp_path, monkeypatch, a=[bug], c=[measured(tmp_path, "c")])
    with pytest.raises(RuntimeError, match=r"1 of 2 collections failed, .*: a: ZeroDivisionError: "):
        cli.main(["run", "x"])
    assert "Traceback" in capfd.readouterr().err
    assert (tmp_path / "run" / "evaluations" / "c" / "evaluate" / "report.html").exists()


def test_suites_and_evaluations_by_flag_and_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({**RECORDED, "evaluations": [named("a")]}))
    _, found = cli._parse("run", cli.COMMANDS["run"], [str(file), "--suite", "bright-12 beir-13"])
    assert found.suite == ["bright-12", "beir-13"] and [one.name for one in found.evaluations] == ["a"]
    assert load_run_file(str(CONFIGS / "suites.yaml")).suite == ["dl19-dl23", "beir-8", "bright-12"]
