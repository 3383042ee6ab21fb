"""Talking to the Hugging Face hub, through huggingface_hub alone.

Owns the upload of a folder. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are those of
huggingface_hub.

    push(Path("runs/demo/export/model"), "me/my-student", "model")    # the address of the repository
"""

from __future__ import annotations

from pathlib import Path

from r2r import __version__
from r2r.datasets.hf import told
from r2r.errors import BadInput


def check_name(repository: str) -> None:
    """Raise BadInput for a name that no repository can have."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise BadInput(f"push: {repository}: {str(error).splitlines()[0]}") from None
    if repository.count("/") != 1:
        raise BadInput(f"push: {repository}: names no owner; give OWNER/NAME")


def push(folder: Path, repository: str, kind: str) -> str:
    """Upload a folder as the files of a repository, in one commit. Return its address. kind: model or dataset.

    A repository that does not exist is made, and is private; files that it has and the folder has not stay. Raises
    BadInput if the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="reason-to-rank", library_version=__version__)
    with told(f"push: {repository}"):
        made = api.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, repo_type=kind, commit_message=f"r2r export {__version__}"
        )
    return str(made)
