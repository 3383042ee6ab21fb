"""The record of a training, and how a student ranks by it.

Owns `r2r.json` in the folder of the adapter, or of the model if all weights were trained. It goes wherever the folder
is copied, so a student ranks as it was trained.

    completed(RerankSettings(), "runs/demo/distill").window    # 8, as trained
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

from r2r.config import DistillSettings, OrderPosition, RankSettings, Reasoning, RerankSettings, Scores, ServeSettings
from r2r.errors import BadInput
from r2r.places import Place, place
from r2r.student import adapter as adapters
from r2r.student.prompt import LABELS
from r2r.tables import write_text

_WINDOW = 20


class Taught(NamedTuple):
    """How a student ranks.

    window: passages in a prompt. stride: passages that a window moves up. reasoning: the reasons that it writes.
    order_position: the order before or after the reasons. scores: what a passage's score is. temperature: of the
    differences of scores, fitted on held-out annotations; None if it is not known.
    """

    window: int
    stride: int
    reasoning: Reasoning
    order_position: OrderPosition
    scores: Scores = "labels"
    temperature: float | None = None


def write(folder: Place, rows: list[dict[str, Any]], settings: DistillSettings, temperature: float | None) -> None:
    """Write the record of a training into the folder of what was trained.

    rows: the annotations that were trained on; the longest decides the window. temperature: see `heldout.temperature`;
    None if nothing was held out to fit it on.
    """
    window = max(2, min(len(LABELS), max(len(row["docids"]) for row in rows)))
    stride = max(1, window // 2)
    taught = Taught(window, stride, settings.reasoning, settings.order_position, settings.scores, temperature)
    record = taught._asdict() | {"labels": settings.labels}
    write_text(json.dumps(record, indent=2) + "\n", folder / adapters.RECORD)


def recorded(adapter: str | None, student: str | None = None) -> dict[str, Any]:
    """Return an adapter's record or, without an adapter, the student's; {} if there is none.

    Raises BadInput if it cannot be read.
    """
    held = adapters.find(adapter) if adapter else student
    if held is None:
        return {}
    file = place(held) / adapters.RECORD
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{file}: cannot be read ({error}); distill again, or remove the file") from None


def warn_of_long_windows(settings: RankSettings, adapter: str | None, student: str | None = None) -> None:
    """Print a line on stderr if the settings ask for a longer window than the record of `recorded`."""
    record = recorded(adapter, student)
    window, trained = settings.window or 0, record.get("window", _WINDOW)
    if window <= trained:
        return
    unknown = "" if record.get("labels") == "drawn" else f", and never of the labels {LABELS[trained]} to T"
    print(
        f"window: {window}: warning: {adapter or student} learned from lists of {trained} at most{unknown}; leave "
        f"window out to rank as it was trained",
        file=sys.stderr,
        flush=True,
    )


def warn_of_no_temperature(settings: RankSettings, adapter: str | None, student: str | None = None) -> None:
    """Print a line on stderr if scores are asked for that training would have to calibrate, and it did not."""
    if settings.score == "rank" or settings.mode == "generate" or recorded(adapter, student).get("temperature"):
        return
    print(
        f"score: share: warning: uncalibrated: {adapter or student} has no recorded temperature, so it is 1; distill "
        f"again with annotations held out, or give score rank",
        file=sys.stderr,
        flush=True,
    )


def warn_of_slow_adapter(settings: RerankSettings | ServeSettings, adapter: str | None) -> None:
    """Print a line on stderr if an engine on a CPU is to load an adapter beside its model."""
    if adapter and not settings.merge and not settings.gpus and adapters.is_adapter(adapters.find(adapter)):
        print(
            f"merge: warning: on a CPU, vLLM is many times slower with {adapter} beside the student than with both "
            f"merged; give merge to merge them in a copy",
            file=sys.stderr,
            flush=True,
        )


def completed(settings: RankSettings, adapter: str | None, student: str | None = None) -> Taught:
    """Return how a student ranks. A setting that is None is taken from the record (see `recorded`), else from the
    defaults.

    Raises BadInput if the settings ask for something that the student was not taught, or if windows skip passages.
    """
    record, trained = recorded(adapter, student), adapter or student
    window = settings.window or record.get("window", _WINDOW)
    same_window = settings.window in (None, record.get("window"))
    stride = settings.stride or (record.get("stride") if same_window else None) or max(1, window // 2)
    order_position = settings.order_position or record.get("order_position", "first")
    reasoning = settings.reasoning or record.get("reasoning", "both")
    explain = getattr(settings, "explain", 0)
    # A server may be asked for reasons at any time.
    writes_reasons = explain or order_position == "last" or isinstance(settings, ServeSettings)
    try:
        settings.check_windows(window, stride, order_position)
    except ValueError as error:
        raise BadInput(str(error)) from None
    if order_position != record.get("order_position", order_position):
        raise BadInput(
            f"order_position: {order_position}: {trained} was distilled with {record['order_position']}; leave it out"
        )
    scores = settings.scores or record.get("scores", "labels")
    if scores != record.get("scores", scores):
        raise BadInput(f"scores: {scores}: {trained} was distilled with {record['scores']}; leave it out")
    if scores == "likelihood" and settings.mode == "generate":
        raise BadInput(f"mode: generate: {trained} is scored by query likelihood and writes no order; leave it out")
    if scores == "likelihood" and settings.passes > 1:
        raise BadInput(f"passes: {settings.passes}: query likelihood reads each passage alone, once; leave it out")
    if writes_reasons and reasoning != record.get("reasoning", reasoning):
        raise BadInput(f"reasoning: {reasoning}: {trained} was distilled with {record['reasoning']}; leave it out")
    if explain and reasoning == "none":
        teller = trained if record or adapter else "reasoning none"
        raise BadInput(f"explain: {explain}: {teller} gives no reasons; explain 0, or distill with some")
    # Without reasons, the order is all that the student was taught to write.
    position: OrderPosition = "first" if reasoning == "none" else order_position
    return Taught(window, stride, reasoning, position, scores, record.get("temperature"))
