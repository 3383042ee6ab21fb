"""Adapters on disk: how they are found and checked, and refused if they were made for another model."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from r2r.errors import BadInput
from r2r.student import adapter
from tests.tiny import tiny_model


@pytest.fixture
def saved(tmp_path):
    """A distill folder with an adapter for the demo's student. Its lora_B is not zero."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model())
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path


def change(folder, edit):
    file = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: edit(name, tensor) for name, tensor in tensors.items()}, file)


def test_a_sound_adapter_is_found_and_fits(saved):
    assert adapter.find(str(saved)) == adapter.find(str(saved / "adapter")) == str(saved / "adapter")
    adapter.check_saved(saved / "adapter")
    adapter.check_fits(str(saved / "adapter"), tiny_model())


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
    file = saved / "adapter" / "adapter_model.safetensors"
    save_file({name.replace("layers.1", "layers.31"): one for name, one in load_file(file).items()}, file)
    with pytest.raises(BadInput, match=r"has no layer model\.layers\.31"):
        adapter.check_fits(str(saved / "adapter"), tiny_model())
