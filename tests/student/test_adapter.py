"""Adapters on disk: how they are found and checked, and refused if they were made for another model."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from r2r import builtin
from r2r.config import DistillSettings, RerankSettings
from r2r.errors import BadInput
from r2r.llm.engine import lora_layers
from r2r.student import adapter, rank, record
from tests.tiny import tiny_model


@pytest.fixture
def saved(tmp_path):
    """A distill folder with an adapter for the demo's student. Its lora_B is not zero."""
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(tiny_model())
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path


def change(folder, edit):
    file = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: edit(name, tensor) for name, tensor in tensors.items()}, file)


def change_names(folder, edit):
    file = folder / "adapter" / "adapter_model.safetensors"
    save_file({edit(name): tensor for name, tensor in load_file(file).items()}, file)


def output_layer(rank):
    """Return the tensors, A and B, of an adapter of the output layer of the model of the tests."""
    shape = AutoModelForCausalLM.from_pretrained(tiny_model()).lm_head.weight.shape
    return {"A": torch.ones(rank, shape[1]), "B": torch.ones(shape[0], rank)}


def test_a_sound_adapter_is_found_and_fits(saved):
    assert adapter.find(str(saved)) == adapter.find(str(saved / "adapter")) == saved / "adapter"
    adapter.check_saved(saved / "adapter")
    adapter.check_fits(str(saved / "adapter"), tiny_model())


def test_a_model_with_a_record_takes_the_place_of_its_student(saved, tmp_path):
    assert adapter.places("demo", str(saved)) == (builtin.model("demo", "student"), str(saved / "adapter"))
    assert adapter.places("demo", None) == (builtin.model("demo", "student"), None)
    shutil.rmtree(saved / "adapter")
    shutil.copytree(tiny_model(), tmp_path / "model")
    with pytest.raises(BadInput, match=r"adapter_config\.json"):
        adapter.find(str(tmp_path))
    rows = [{"docids": ["a", "b", "c"]}]
    record.write(tmp_path / "model", rows, DistillSettings(student="demo", method="full", reasoning="direct"), 1.5)
    model = str(tmp_path / "model")
    assert adapter.places("demo", str(tmp_path)) == adapter.places("demo", model) == (model, None)
    assert adapter.places(model, None) == (model, None)
    # However it is named, the record in it decides how it ranks.
    taught = (3, 1, "direct", "first", "labels", 1.5)
    assert record.completed(RerankSettings(), None, model) == record.completed(RerankSettings(), model) == taught
    rank.check_student("demo", str(tmp_path))
    adapter.check_saved(model)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"holds no \.safetensors file"):
        adapter.check_saved(model)


def test_an_output_layer_that_vllm_would_wrap_is_refused_for_likelihood(saved):
    folder, likelihood = str(saved), RerankSettings(scores="likelihood")
    assert lora_layers(f"{folder}/adapter") == ["down_proj", "q_proj"]
    rank.check_student(tiny_model(), folder, likelihood)
    file = saved / "adapter" / "adapter_model.safetensors"
    wide = {f"base_model.model.lm_head.lora_{side}.weight": one for side, one in output_layer(4).items()}
    save_file(load_file(file) | wide, file)
    with pytest.raises(BadInput, match=rf"merge: {folder} changes the output layer \(lm_head\), .*; set merge"):
        rank.check_student(tiny_model(), folder, likelihood)
    rank.check_student(tiny_model(), folder, RerankSettings(scores="likelihood", merge=True))
    rank.check_student(tiny_model(), folder, RerankSettings())


def test_all_layers_are_wrapped_for_experts(saved):
    change_names(saved, lambda name: name.replace("mlp", "mlp.experts.0"))
    assert lora_layers(str(saved / "adapter")) is None


def test_a_model_with_a_broken_tensor_is_found_out(tmp_path):
    shutil.copytree(tiny_model(), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    save_file({name: tensor * float("inf") for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(RuntimeError, match="empty or not finite"):
        adapter.check_saved(tmp_path / "model")


def test_training_in_4_bits_needs_its_package(monkeypatch):
    monkeypatch.setattr(adapter.importlib.util, "find_spec", lambda name: None)
    adapter.check_method("lora")
    with pytest.raises(BadInput, match="method: qlora: needs the package bitsandbytes"):
        adapter.check_method("qlora")


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"adapter_config\.json"):
        adapter.find(str(tmp_path))


def test_an_adapter_that_training_did_not_move_is_found_out(saved):
    change(saved, lambda name, tensor: torch.zeros_like(tensor) if "lora_B" in name else tensor)
    with pytest.raises(RuntimeError, match="lora_B is zero"):
        adapter.check_saved(saved / "adapter")


def test_an_adapter_with_an_empty_or_broken_tensor_is_found_out(saved):
    change(saved, lambda name, tensor: tensor[:0] if "layers.0" in name else tensor)
    with pytest.raises(RuntimeError, match="empty or not finite"):
        adapter.check_saved(saved / "adapter")
    change(saved, lambda name, tensor: tensor * float("nan"))
    with pytest.raises(RuntimeError, match="empty or not finite"):
        adapter.check_saved(saved / "adapter")


def test_an_adapter_of_another_width_is_refused(saved):
    change(saved, lambda name, tensor: tensor.repeat(1, 2) if "lora_A" in name else tensor)
    with pytest.raises(BadInput, match=r"made for another model \(.*\): its .* is .* wide, .* has"):
        adapter.check_fits(str(saved / "adapter"), tiny_model())


def test_an_adapter_for_other_layers_is_refused(saved):
    change_names(saved, lambda name: name.replace("layers.1", "layers.31"))
    with pytest.raises(BadInput, match=r"has no layer model\.layers\.31"):
        adapter.check_fits(str(saved / "adapter"), tiny_model())
