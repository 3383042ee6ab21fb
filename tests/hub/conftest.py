import pytest

from tests.hub.fake import TOKEN, FakeHub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub in the place of the real one. huggingface_hub reads its settings once, when it is imported."""
    from huggingface_hub import HfFileSystem, constants

    from r2r.datasets import hf

    with FakeHub() as found:
        of_a_file = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.address + of_a_file)
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        # Xet is a protocol of its own; the hub takes files without it, too.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hf._on_hub.cache_clear()
        # It keeps one instance, with the address of the hub that was asked first.
        HfFileSystem.clear_instance_cache()
        yield found
    hf._on_hub.cache_clear()
    HfFileSystem.clear_instance_cache()
