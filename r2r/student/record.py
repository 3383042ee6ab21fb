"""What an adapter's folder records of its training, and how a student ranks by it.

Owns `r2r.json`, beside the adapter's weights: what was trained is what ranks, in `rerank` and in `serve`, also after
the folder was copied elsewhere.

    completed(RerankSettings(), "runs/demo/distill").window    # 8, as trained
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from r2r.config import DistillSettings, OrderPosition, RankSettings, Reasoning
from r2r.errors import BadInput
from r2r.student import adapter as adapters
from r2r.student.prompt import LABELS
from r2r.tables import write_text

_FILE = "r2r.json"
_WINDOW = 20


class Taught(NamedTuple):
    """How a student ranks: the window and how far it moves up, in passages; the reasons, and where the order stands."""

    window: int
    stride: int
    reasoning: Reasoning
    order_position: OrderPosition


def write(folder: Path, rows: list[dict], settings: DistillSettings) -> None:
    """Record in a PEFT folder how its adapter was trained: on windows of which size, and what the reply holds."""
    window = max(2, min(len(LABELS), max(len(row["docids"]) for row in rows)))
    taught = Taught(window, max(1, window // 2), settings.reasoning, settings.order_position)
    write_text(json.dumps(taught._asdict(), indent=2) + "\n", folder / _FILE)


def recorded(adapter: str | None) -> dict[str, Any]:
    """Return the record of an adapter, {} if it has none: it came from elsewhere, or there is no adapter."""
    if adapter is None:
        return {}
    file = Path(adapters.find(adapter)) / _FILE
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: cannot be read ({error}); distill again, or remove the file") from None


def completed(settings: RankSettings, adapter: str | None) -> Taught:
    """Return how a student ranks: as the settings say, where they say nothing as the adapter records, else by default.

    Raises BadInput if the student would be asked for what it was not taught, or windows leave passages out.
    """
    record = recorded(adapter)
    window = settings.window or record.get("window", _WINDOW)
    same_window = settings.window in (None, record.get("window"))
    stride = settings.stride or (record.get("stride") if same_window else None) or max(1, window // 2)
    order_position = settings.order_position or record.get("order_position", "first")
    # An order that comes last follows the reasons that were taught; one that comes first needs none.
    reasoning = settings.reasoning or record.get("reasoning", "both")
    explain = getattr(settings, "explain", 0)
    if stride > window:
        raise BadInput(f"stride: {stride}: more than the window of {window}, so passages are skipped")
    if explain > window:
        raise BadInput(f"explain: {explain}: more than the window of {window} that is explained from")
    if order_position == "last" and settings.mode == "generate":
        raise BadInput("mode: generate: writes the order first; with order_position last, rank by scores")
    if order_position != record.get("order_position", order_position):
        raise BadInput(
            f"order_position: {order_position}: {adapter} was distilled with {record['order_position']}; leave it out"
        )
    if (explain or order_position == "last") and reasoning != record.get("reasoning", reasoning):
        raise BadInput(f"reasoning: {reasoning}: {adapter} was distilled with {record['reasoning']}; leave it out")
    if explain and reasoning == "none":
        raise BadInput(
            f"explain: {explain}: {adapter or 'reasoning none'} gives no reasons; explain 0, or distill with some"
        )
    return Taught(window, stride, reasoning, order_position)
