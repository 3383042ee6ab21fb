"""What `export` writes, what its card says, and what the hub gets: a fake one on loopback, asked by the real client."""

import json
import shutil

import pytest
import yaml

from r2r import cli, tables
from r2r.datasets import read_annotations
from r2r.hub.card import public
from tests.hub.fake import TOKEN
from tests.hub.made import ANNOTATION, finished_run

MODEL = ["README.md", "adapter_config.json", "adapter_model.safetensors", "r2r.json"]


@pytest.fixture
def run(tmp_path):
    return finished_run(tmp_path / "run")


def export(*words):
    return cli.main(["export", *map(str, words)])


def card(folder):
    _, head, body = (folder / "model" / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), body


def test_an_adapter_goes_out_with_a_card_and_nothing_is_uploaded(run, hub, capsys):
    out = run / "export"
    assert export(run, "--to", out, "--license", "apache-2.0") == 0
    assert sorted(file.name for file in (out / "model").iterdir()) == MODEL
    head, body = card(out)
    assert head["base_model"] == "small/student" and head["base_model_relation"] == "adapter"
    assert (head["license"], head["library_name"]) == ("apache-2.0", "peft")
    figures = {one["type"]: one["value"] for one in head["model-index"][0]["results"][0]["metrics"]}
    assert figures["nDCG@10"] == 1.0
    assert "| **student** (this model) | 1.0000 |" in body and "| bm25 | 0.4942 |" in body
    assert "| student | nDCG@10 | +0.5058 | +0.3" in body
    assert "| teacher | big/teacher |" in body
    # All that made the student, with the steps that were taken.
    for line in ("steps: 20", "epochs: 2.5", "labels: drawn", "lora_targets: q_proj, k_proj, v_proj"):
        assert f"\n- {line}" in body
    assert "\n- workers" not in body and "\n- pairwise" not in body
    assert "PEFT's own card" not in body
    # Neither the folders of this machine nor the address of a server.
    written = "".join((out / "model" / name).read_text() for name in MODEL if not name.endswith("tensors"))
    assert str(run.parent) not in written and "10.0.0.7" not in written
    assert json.loads((out / "model" / "adapter_config.json").read_text())["base_model_name_or_path"] == "small/student"
    printed = capsys.readouterr().out
    assert "model/adapter_model.safetensors" in printed and "nothing was uploaded" in printed
    assert hub.asked == []


def test_push_uploads_these_files_to_a_private_repository(run, hub, capsys):
    out = run / "export"
    assert export(run, "--to", out, "--push", "me/student") == 0
    held = hub.repositories["models", "me/student"]
    assert sorted(held) == MODEL
    assert held == {name: (out / "model" / name).read_bytes() for name in MODEL}
    assert hub.private == {"me/student"}
    assert b'adapter="student"' in held["README.md"] and b"me/student" in held["README.md"]
    # Once more: the folder is done, the upload is not skipped.
    held.clear()
    assert export(run, "--to", out, "--push", "me/student") == 0
    assert sorted(held) == MODEL
    assert "done already" in capsys.readouterr().out


def test_a_hub_that_refuses_is_one_line_and_the_folder_stays(run, hub, capsys, monkeypatch):
    out = run / "export"
    hub.fail = 403
    assert export(run, "--to", out, "--push", "me/student") == 2
    said = capsys.readouterr().err.splitlines()
    assert "push: me/student: the hub answers 403" in said[-1] and "HF_TOKEN" in said[-1]
    assert (out / "manifest.json").exists()


def test_no_hub_and_no_token_are_told(run, hub, capsys, monkeypatch):
    from huggingface_hub import constants

    out = run / "export"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert export(run, "--to", out, "--push", "me/student") == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert export(run, "--to", out, "--push", "me/student") == 2
    assert "cannot be reached" in capsys.readouterr().err


def test_figures_and_data_are_those_of_this_training_only(run):
    shutil.rmtree(run / "annotate")
    # The run of another student under the same name.
    (run / "rerank" / "run.txt").write_text("q1 Q0 d1 1 1 r2r\n")
    assert export(run / "distill", "--to", run / "export") == 0
    head, body = card(run / "export")
    assert "None: no evaluation of this model was found" in body and "model-index" not in head
    assert "not known: its annotations were not found" in body
    assert head["license"] == "unknown" and "| licence | none was stated |" in body


def test_figures_of_the_further_collections_of_a_run_are_on_the_card(run):
    for name in ("rerank", "evaluate"):
        shutil.copytree(run / name, run / "evaluations" / "fiqa" / name)
    assert export(run, "--to", run / "export") == 0
    head, body = card(run / "export")
    assert [one["dataset"]["name"] for one in head["model-index"][0]["results"]] == ["qrels.txt", "fiqa"]
    assert "\n`qrels.txt`, 8 judged" in body and "\n**fiqa**, `qrels.txt`, 8 judged" in body
    assert body.count("| **student** (this model) | 1.0000 |") == 2


@pytest.mark.parametrize("beside", [True, False])
def test_the_teacher_of_annotations_that_a_judge_kept_is_on_the_card(tmp_path, beside):
    run = finished_run(tmp_path / "run", kept=True)
    if not beside:
        (run / "distill").rename(tmp_path / "elsewhere")
        run = tmp_path / "elsewhere"
    assert export(run, "--to", tmp_path / "export") == 0
    body = card(tmp_path / "export")[1]
    assert "| teacher | big/teacher |" in body and "`judge`: " in body and "`annotate`: 1 annotations" in body


def test_figures_of_an_earlier_training_in_the_same_folder_are_not_its_own(run):
    manifest = json.loads((run / "distill" / "manifest.json").read_text())
    (run / "distill" / "manifest.json").write_text(json.dumps(manifest | {"content": "sha256:other"}))
    assert export(run, "--to", run / "export") == 0
    assert "None: no evaluation of this model was found" in card(run / "export")[1]


def test_a_whole_model_names_a_base_that_is_on_no_hub(tmp_path, capsys):
    run = finished_run(tmp_path / "run", method="full", student="demo")
    assert export(run, "--to", run / "export") == 0
    assert "warning: the base model, demo, has no name on the hub" in capsys.readouterr().err
    head, body = card(run / "export")
    assert "base_model" not in head and head["library_name"] == "transformers"
    assert "all of whose weights were trained" in body and "lora_rank" not in body
    assert export(run, "--to", run / "export", "--base", "org/base") == 0
    assert card(run / "export")[0]["base_model"] == "org/base"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--to", "out"], "nowhere: holds no finished training"),
        (["run/annotate", "--to", "out"], "run/annotate: holds no finished training"),
        (["run", "--to", "run/evaluate"], "to: run/evaluate: is no folder that export wrote"),
        (["run", "--to", "out", "--push", "student"], "push: student: names no owner"),
        (["run", "--to", "out", "--push", "a/b/c"], "push: a/b/c: "),
        (["run", "--to", "out", "--license", "Apache License"], "license"),
    ],
)
def test_mistakes(run, words, said, monkeypatch, capsys):
    monkeypatch.chdir(run.parent)
    assert export(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (run.parent / "out").exists()


def test_a_changed_adapter_is_not_exported(run, capsys):
    (run / "distill" / "adapter" / "adapter_model.safetensors").write_text("x")
    assert export(run, "--to", run / "export") == 2
    assert "is missing or was changed since it was trained" in capsys.readouterr().err


def test_a_dataset_goes_to_a_dataset_repository_and_comes_back(tmp_path, hub, capsys):
    folder = tmp_path / "published"
    tables.write([ANNOTATION], folder, "annotations")
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    assert export(folder, "--to", tmp_path / "out", "--license", "mit") == 2
    assert "license: belongs to a model" in capsys.readouterr().err
    assert export(folder, "--to", tmp_path / "out", "--push", "me/reasons") == 0
    held = hub.repositories["datasets", "me/reasons"]
    assert held == {name: (folder / name).read_bytes() for name in ("README.md", "annotations/part-00000.parquet")}
    assert read_annotations("hf:me/reasons")[0] == [ANNOTATION | {"agreement": None}]


@pytest.mark.slow
def test_merged_weights_are_those_of_base_and_adapter(tmp_path):
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    from r2r.identity import of_files
    from tests.tiny import tiny_model

    run = finished_run(tmp_path / "run", student=tiny_model())
    adapter = run / "distill" / "adapter"
    base = AutoModelForCausalLM.from_pretrained(tiny_model())
    targets = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(base, targets).save_pretrained(adapter)
    manifest = json.loads((run / "distill" / "manifest.json").read_text())
    manifest |= {"files": {}, "content": of_files(adapter)}
    (run / "distill" / "manifest.json").write_text(json.dumps(manifest))
    assert export(run, "--to", run / "export", "--merge", "--base", "org/base") == 0
    ids = torch.arange(2, 9)[None]
    plain = AutoModelForCausalLM.from_pretrained(tiny_model())
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(run / "export" / "model")(ids).logits
        expected = PeftModel.from_pretrained(plain, adapter)(ids).logits
    assert torch.allclose(merged, expected, atol=1e-4)
    head, body = card(run / "export")
    assert head["base_model_relation"] == "finetune" and "adapter merged into its weights" in body


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("beir:/home/me/data/fiqa#train", "beir:fiqa#train"),
        ("/mnt/models/Qwen2.5-7B", "Qwen2.5-7B"),
        ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
        ("http://10.0.0.7:8000/v1#big/teacher", "big/teacher"),
        ("file:/home/me/batches#/mnt/models/Qwen2.5-7B", "Qwen2.5-7B"),
        ("http://10.0.0.7:8000/v1", "a model behind a server"),
        ("s3://bucket/x/qrels.txt?region=eu", "qrels.txt"),
        ("parquet:s3://bucket/x/docs#docid=id", "parquet:docs#docid=id"),
        ("irds:beir/fiqa/test", "irds:beir/fiqa/test"),
        ("demo#train500", "demo#train500"),
        (
            "run:/a/b/dense.run#corpus=beir:/c/fiqa,queries=beir:/c/fiqa",
            "run:dense.run#corpus=beir:fiqa,queries=beir:fiqa",
        ),
    ],
)
def test_public_names_hold_no_place(source, shown):
    assert public(source) == shown
