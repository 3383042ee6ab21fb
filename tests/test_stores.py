"""Stages whose inputs and folders lie in an object store, those that need no Ray: the same as on a disk.

tests/integration/test_demo.py has all stages.
"""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from r2r import builtin, cli, datasets, places, stage, tables
from r2r.config import AnnotateSettings, DistillSettings, EvaluateSettings, RetrieveSettings
from r2r.datasets.runs import RunSpec
from r2r.errors import BadInput
from r2r.evaluation.evaluate import evaluate
from r2r.firststage import retrieve_runs
from r2r.identity import fingerprint, manifest_of
from r2r.places import place
from r2r.teacher.annotate import annotate
from tests.hub.made import finished_run
from tests.teacher.test_annotate import recorded

CORPUS = "".join(json.dumps({"_id": f"d{n}", "title": "", "text": f"text {n}"}) + "\n" for n in range(9))
QUERIES = "".join(json.dumps({"_id": f"q{n}", "text": f"query {n}"}) + "\n" for n in range(5))
QRELS = "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in range(5))
RUN = "".join(f"q{n} Q0 d{at} 1 {9 - at} x\n" for n in range(5) for at in range(6))
RECORDED = "".join(json.dumps(recorded(f"q{n}")) + "\n" for n in range(3))
DATA = {"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels/test.tsv": QRELS, "dense.run": RUN}
DATA |= {"recorded.jsonl": RECORDED}


def upload(store, folder: Path, key: str) -> None:
    """Copy a folder into the store as `aws s3 sync` does."""
    for file in folder.rglob("*"):
        if file.is_file():
            store.put(f"{key}/{file.relative_to(folder).as_posix()}", file.read_bytes())


@pytest.fixture
def data(store, tmp_path):
    """The same data on a disk and in the store: both places."""
    for name, text in DATA.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(text)
    upload(store, tmp_path / "data", "data")
    return str(tmp_path / "data"), "s3://bucket/data"


def run_all(source: str, out: str) -> dict:
    """Run stages from one place to another. Return their manifests, without what differs by the place or the time."""
    beir = f"beir:{source}"
    retrieve_runs(RunSpec([f"{source}/dense.run"], beir, beir), f"{out}/retrieve", RetrieveSettings(k=4))
    annotate(None, f"{out}/annotate", AnnotateSettings(teacher=f"teacher:{source}/recorded.jsonl"))
    runs = {"first": f"{out}/retrieve/run.txt", "dense": f"{source}/dense.run"}
    evaluate(beir, runs, f"{out}/evaluate", EvaluateSettings(), candidates=f"{out}/retrieve")
    assert cli.main(["judge", "--rankings", f"{out}/annotate", "--out", f"{out}/judge"]) == 0
    found = {}
    for name in ("retrieve", "annotate", "judge", "evaluate"):
        found[name] = manifest_of(place(out) / name)
        assert places.changed(place(out) / name, found[name]["files"]) == []
        for told in ("seconds", "settings"):
            del found[name][told]
        for put in found[name]["inputs"].values():
            del put["source"]
        # Reports name their sources.
        for told in ("report.html", "measures.json"):
            found[name]["files"].pop(told, None)
    return found


def test_stages_come_to_the_same_wherever_they_read_and_write(data, tmp_path):
    disk, store = data
    expected = run_all(disk, str(tmp_path / "disk"))
    assert run_all(store, "s3://bucket/runs/x") == expected
    assert run_all(disk, "s3://bucket/runs/y") == expected
    assert run_all(store, str(tmp_path / "again")) == expected
    for table in ("retrieve/candidates", "annotate/annotations"):
        folder, _, name = table.partition("/")
        rows = tables.read(f"s3://bucket/runs/x/{folder}", name)
        assert rows == tables.read(tmp_path / "disk" / folder, name)


def test_a_store_that_lists_late_throttles_and_cuts_changes_nothing(data, store, tmp_path, capfd):
    expected = run_all(data[0], str(tmp_path / "disk"))
    store.faults.late, store.faults.throttle, store.faults.cut = 3600, 0.05, 0.05
    # Raw data is found by listings, and lies there for long.
    for key in store.keys("data/"):
        store.objects[key] = store.objects[key]._replace(made=0)
    assert run_all(data[1], "s3://bucket/runs/x") == expected
    assert store.asked["503"] > 5 and store.asked["cut"] > 5 and "; try 2 of 8 in" in capfd.readouterr().err


def test_what_is_done_is_not_done_again_and_what_was_lost_is(data, store, capsys):
    out = "s3://bucket/runs/x"
    run_all(data[1], out)
    capsys.readouterr()
    before = store.asked["PUT"]
    run_all(data[1], out)
    assert capsys.readouterr().out.count("done already, nothing to do") == 4 and store.asked["PUT"] == before
    # The same content from elsewhere is the same input.
    run_all(data[0], out)
    assert capsys.readouterr().out.count("done already, nothing to do") == 4
    (place(out) / "retrieve" / "candidates" / "part-00000.parquet").unlink()
    run_all(data[1], out)
    assert "retrieve: 5 candidates" in capsys.readouterr().out


def test_a_run_that_was_copied_into_a_store_is_read_there(store, tmp_path, capsys):
    upload(store, finished_run(tmp_path / "run"), "runs/copied")
    out, source = "s3://bucket/runs/exported", "s3://bucket/runs/copied"
    assert fingerprint(f"{source}/annotate") == fingerprint(str(tmp_path / "run" / "annotate"))
    assert cli.main(["export", source, "--to", out]) == 0
    assert cli.main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "exported")]) == 0
    local, stored = (places.fetch(place(where) / "model") for where in (tmp_path / "exported", out))
    assert sorted(one.name for one in stored.iterdir()) == sorted(one.name for one in local.iterdir())
    assert (stored / "adapter_model.safetensors").read_bytes() == (local / "adapter_model.safetensors").read_bytes()
    # A manifest there is enough to do its stage again.
    file = f"{source}/evaluate/manifest.json"
    assert cli.main(["reproduce", file, "--out", "s3://bucket/runs/again"]) == 0
    assert "evaluate: the same output" in capsys.readouterr().out


def test_datasets_are_read_in_a_store(data, store):
    for what, read in (("queries", datasets.read_queries), ("qrels", datasets.read_qrels)):
        assert read(f"beir:{data[1]}") == read(f"beir:{data[0]}")
        assert datasets.fingerprint(f"beir:{data[1]}", what) == datasets.fingerprint(f"beir:{data[0]}", what)
    for parts in (1, 3):
        both = [
            [row for part in datasets.corpus_parts(f"beir:{where}", parts) for _, row in part.read()] for where in data
        ]
        assert both[0] == both[1] and len(both[0]) == 9
    spec = "jsonl:{}/corpus.jsonl#docid=_id"
    assert datasets.fingerprint(spec.format(data[1]), "corpus") == datasets.fingerprint(spec.format(data[0]), "corpus")
    with pytest.raises(BadInput, match=r"s3://bucket/data: has no qrels/dev.tsv for the split #dev; it has #test"):
        datasets.read_qrels(f"beir:{data[1]}#dev")
    with pytest.raises(BadInput, match="s3://bucket/none: no such folder"):
        datasets.read_queries("beir:s3://bucket/none")


def test_a_store_that_cannot_be_written_to_is_told_in_one_line(data, store, capsys):
    def told(out: str) -> str:
        words = ["--qrels", f"beir:{data[0]}", "--run", f"x={data[0]}/dense.run", "--out", out]
        assert cli.main(["evaluate", *words]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert told("s3://none/x") == "r2r: s3://none: no such bucket, or none that this account may see; make it first"
    store.faults.denied = frozenset(["PUT"])
    assert "s3://bucket/x/.writable: writing: AWS Error ACCESS_DENIED" in told("s3://bucket/x")
    store.faults.denied = frozenset(["LIST"])
    assert "s3://bucket/x: looking: AWS Error ACCESS_DENIED" in told("s3://bucket/x")


def test_a_submitted_job_may_write_to_a_store(data, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    stage._check_place(place("s3://bucket/x"))
    with pytest.raises(BadInput, match="or an address in a store"):
        stage._check_place(place("runs/x"))


def test_an_export_of_annotations_may_lie_in_a_store(data, store, tmp_path):
    teacher = f"teacher:{data[1]}/recorded.jsonl"
    words = ["annotate", "--teacher", teacher, "--out", "s3://bucket/a", "--export", "s3://bucket/published"]
    for _ in range(2):
        assert cli.main(words) == 0
    assert datasets.read_annotations("teacher:s3://bucket/published") == datasets.read_annotations("s3://bucket/a")
    assert "README.md" in {os.path.basename(key) for key in store.keys("published/")}


def test_what_was_trained_goes_into_a_store_whole(out, tmp_path, monkeypatch):
    """The stage around a training: its plan, checkpoints, log, adapter and record."""
    from r2r.student import checkpoint, distill, record
    from r2r.student.log import Log

    (tmp_path / "recorded.jsonl").write_text(RECORDED)
    settings = DistillSettings(student="demo", steps=4, held_out=0.0, max_length=4000)
    seen = []

    def train(config, given):
        checkpoints = place(config["checkpoints"])
        plan = json.loads((checkpoints / "plan.json").read_text())
        rows = config["rows"]()
        seen.append((len(rows), plan["learn"], checkpoint.newest(checkpoints)))
        log = Log(place(config["out"]), checkpoint.newest(checkpoints), given)
        for step in range(checkpoint.newest(checkpoints) + 1, given.steps + 1):
            log.write({"step": step, "pairwise": 1 / step, "tokens": 10, "padding": 0.0, "seconds": 1.0})
            with places.replacing_folder(checkpoint.best_folder(checkpoints, step)) as aside:
                (aside / "adapter").mkdir()
                (aside / "adapter" / "adapter_config.json").write_text("{}")
                (aside / "adapter" / "adapter_model.safetensors").write_text(f"weights of {step}")
            log.keep()
            with places.replacing_folder(checkpoint.step_folder(checkpoints, step)) as aside:
                state = {"step": step, "best": [step, None], "before": None, "stopped": False}
                (aside / "state.json").write_text(json.dumps(state))
            checkpoint.keep(checkpoints, step, step)
            if step == 2 and len(seen) == 1:
                raise KeyboardInterrupt
        log.close()

    monkeypatch.setattr(distill, "_train", train)
    monkeypatch.setattr(distill, "_checked", lambda best, given: {"prompts": [], "temperature": None})
    one = distill.stage(f"teacher:{tmp_path}/recorded.jsonl", out / "distill", settings)
    one = dataclasses.replace(one, check=lambda there: None)
    with pytest.raises(KeyboardInterrupt):
        stage.run(one)
    stage.run(one)
    assert seen == [(3, [0, 1, 2], 0), (3, [0, 1, 2], 2)]
    folder = places.fetch(place(str(out / "distill")) / "adapter")
    assert (folder / "adapter_model.safetensors").read_text() == "weights of 4"
    assert record.recorded(str(out / "distill"))["window"] == 3
    assert tables.read(out / "distill", "steps")["step"].to_pylist() == [1, 2, 3, 4]
    assert not (out / "distill" / "checkpoints").is_dir()
    found = manifest_of(out / "distill")
    assert found["rows"] == {"annotations": 3, "steps": 4} and places.changed(out / "distill", found["files"]) == []
    assert fingerprint(str(out / "distill")) == found["content"]


def test_models_and_adapters_in_a_store_are_copied_to_this_disk(store, tmp_path):
    from r2r.student import adapter

    upload(store, builtin.MODELS["demo", "student"], "models/student")
    upload(store, finished_run(tmp_path / "run") / "distill", "runs/distill")
    model, folder = adapter.places("s3://bucket/models/student", "s3://bucket/runs/distill")
    assert Path(model, "model.safetensors").exists() and Path(folder, "adapter_model.safetensors").exists()
    assert adapter.find("s3://bucket/runs/distill/adapter") == place("s3://bucket/runs/distill/adapter")
    # Who looks at the tokenizer alone does not wait for the weights.
    about = Path(builtin.model("s3://bucket/models/student", "student", weights=False))
    assert (about / "tokenizer.json").exists() and not (about / "model.safetensors").exists()
    # A model counts by its files, wherever they lie.
    assert fingerprint("s3://bucket/models/student") == fingerprint(str(builtin.MODELS["demo", "student"]))
    with pytest.raises(BadInput, match=r"s3://bucket/none: no adapter_config.json in it"):
        adapter.find("s3://bucket/none")
    with pytest.raises(BadInput, match="s3://bucket/none: no such file or folder"):
        builtin.model("s3://bucket/none", "student")
