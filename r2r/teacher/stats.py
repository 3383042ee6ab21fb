"""The figures of what a teacher answered: `stats.json`, its printed summary, and the estimate of a dry run.

Owns the figures of annotations, those that all stages with a teacher share, and their wording. `ask.py` counts.

    tell(of(counts, ["evidence is not in its passage"], 0.0, settings), settings)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from r2r.config import AnnotateSettings, TeacherSettings
from r2r.errors import Stopped
from r2r.rows.journal import Journal
from r2r.rows.pool import share
from r2r.teacher.calls import cost
from r2r.teacher.passages import WITHOUT_TEXT
from r2r.teacher.prompt import fields

# Estimated reply tokens for a passage, and for each text about it. They were counted with Qwen's tokenizer in the
# published replies of a large teacher about MS MARCO.
_PASSAGE, _TEXT = 6, 30
# Most positives without a text that are named in print.
_NAMED = 5

_GOES_ON = "all finished rows are kept, and the same command with a higher limit goes on"


def of(counts: Counter[str], reasons: list[str], speed: float, settings: AnnotateSettings) -> dict[str, Any]:
    """Return the content of stats.json. A share or mean of nothing is None.

    counts: sums over all finished rows, and over the probes. reasons: of the rejects; they are counted by their text
    before a colon. speed: reply tokens per second of this run.
    """
    rows, replies = counts["annotations"], counts["replies"]
    drawn: dict[str, Any] = {"near_duplicates": counts["near_duplicates"]} if settings.distinct else {}
    if settings.positives:
        kinds = ("drawn", "put_in", "from_corpus", "left_out")
        without = [name.removeprefix(WITHOUT_TEXT) for name in counts if name.startswith(WITHOUT_TEXT)]
        positives = {kind: counts[f"positives_{kind}"] for kind in kinds}
        drawn["positives"] = positives | {"without_text": sorted(without)}
    return {
        "rows": {"annotations": rows, "rejects": counts["rejects"]},
        **asking(counts, reasons, speed, settings),
        "evidence": {
            "given": counts["evidence"],
            "verbatim": counts["verbatim"],
            "share": share(counts["verbatim"], counts["evidence"]),
        },
        "order": {
            "tau_with_retrieved": share(counts["tau"], rows),
            "same_as_shown": share(counts["same_as_shown"], replies),
        },
        "agreement": share(counts["agree"], rows) if settings.samples > 1 else None,
        **({"passages": drawn} if drawn else {}),
    }


def asking(counts: Counter[str], reasons: list[str], speed: float, settings: TeacherSettings) -> dict[str, Any]:
    """Return the figures that do not depend on what was asked. Arguments as for `of`."""
    attempts = {name.removeprefix("attempts_"): count for name, count in counts.items() if name.startswith("attempts_")}
    paid_in, paid_out = (counts[name] + counts[f"probe_{name}"] for name in ("prompt_tokens", "completion_tokens"))
    return {
        "tokens": {
            "prompt": counts["prompt_tokens"],
            "cached_share": share(counts["cached_tokens"], counts["prompt_tokens"]),
            "completion": counts["completion_tokens"],
            "completion_per_second": round(speed, 1),
        },
        "replies_by_attempts": dict(sorted(attempts.items(), key=lambda one: int(one[0]))),
        "repaired": counts["repaired"],
        "cut_texts": counts["cut_texts"],
        "rejects": dict(Counter(reason.partition(":")[0] for reason in reasons).most_common()),
        "first_refusal": next((reason for reason in reasons if reason.startswith("refused: ")), None),
        "cost": {"spent": cost(paid_in, paid_out, settings)},
        "probes": {name: counts[f"probe_{name}"] for name in ("calls", "prompt_tokens", "completion_tokens")},
    }


def reasons(stats: dict[str, Any]) -> str:
    """Return the reasons of the rejects with their counts, as one line."""
    said = ", ".join(f"{count:,} {reason}" for reason, count in stats["rejects"].items())
    return f"{said} (the first was {stats['first_refusal']})" if stats["first_refusal"] else said


def written(stats: dict[str, Any]) -> str:
    """Return in words how much the teacher wrote."""
    tokens = stats["tokens"]
    return f"{tokens['completion']:,} tokens written ({tokens['completion_per_second']:,.0f} a second in this run)"


def stop_at_limits(
    name: str, stats: dict[str, Any], rejects: int, unasked: int, total: int, settings: TeacherSettings
) -> None:
    """Raise Stopped if more of the `total` rows than `max_reject_rate` are rejects, or if `max_cost` left some unasked.

    name: the stage's.
    """
    if rejects > settings.max_reject_rate * total:
        allowed = f"more than max_reject_rate {settings.max_reject_rate:g} allows"
        raise Stopped(f"{name}: {rejects:,} rows rejected, {allowed}: {reasons(stats)}; {_GOES_ON}")
    if unasked:
        paid = f"{stats['cost']['spent']:.4f} of max_cost {settings.max_cost:g} spent"
        raise Stopped(f"{name}: {paid}, and another row might pass it; {unasked:,} rows are left; {_GOES_ON}")


def tell(stats: dict[str, Any], settings: AnnotateSettings) -> None:
    """Print the summary, and a warning if most orders are the order shown."""
    evidence, order = stats["evidence"], stats["order"]
    said = [written(stats)]
    if evidence["given"]:
        said.append(f"{evidence['share']:.1%} of the evidence verbatim")
    if order["tau_with_retrieved"] is not None:
        said.append(f"Kendall's tau with the retrieved order {order['tau_with_retrieved']:.2f}")
    if stats["agreement"] is not None:
        said.append(f"between samples {stats['agreement']:.2f}")
    if stats["cost"]["spent"]:
        said.append(f"cost {stats['cost']['spent']:,.4f}")
    print(f"annotate: {', '.join(said)}", flush=True)
    for line in _of_passages(stats.get("passages", {})):
        print(f"annotate: {line}", flush=True)
    if stats["rejects"]:
        print(f"annotate: rejected: {reasons(stats)}", flush=True)
    if (order["same_as_shown"] or 0) > 0.5:
        share = f"{order['same_as_shown']:.0%} of the orders are the order shown"
        print(f"annotate: WARNING: {share}: this teacher may not be ranking at all", flush=True)


def _of_passages(drawn: dict[str, Any]) -> Iterator[str]:
    if "near_duplicates" in drawn:
        yield f"{drawn['near_duplicates']:,} near-duplicates left out"
    if positives := drawn.get("positives"):
        most = f"{positives['left_out']:,} left out, over half of a list"
        added = f"{positives['put_in']:,} put in, {positives['from_corpus']:,} of them no candidates"
        yield f"positives: {positives['drawn']:,} drawn, {added}; {most}"
        if lost := positives["without_text"]:
            named = ", ".join(lost[:_NAMED]) + (", ..." if len(lost) > _NAMED else "")
            yield f"{len(lost):,} positives are in neither candidates nor corpus (qid docid): {named}"


def tell_plan(counts: Counter[str], journal: Journal, settings: AnnotateSettings) -> None:
    """Print how much would be asked, and the estimated cost and time. Arguments as for `plan`; counts has `passages`,
    too."""
    guess = guessed_reply(counts["passages"], settings.reasoning)
    plan("annotate", counts, journal, settings, guess, f"at {_TEXT} for each text")


def guessed_reply(passages: int, reasoning: str) -> int:
    """Return the estimated tokens of replies about so many passages."""
    return passages * (_PASSAGE + _TEXT * len(fields(reasoning)))


def engine_hours(tokens: float, tokens_per_second: float) -> float:
    """Return the hours that an engine takes for so many reply tokens, at its reply tokens per second."""
    return tokens / tokens_per_second / 3600


def plan(name: str, counts: Counter[str], journal: Journal, settings: TeacherSettings, guess: float, how: str) -> None:
    """Print how much would be asked, and the estimated cost and time.

    Arguments:
        name: the stage's.
        counts: `done`, all rows; and of the rows that are not in the journal: rows, calls, prompt_tokens, cut_texts,
            and guessed_calls, whose passages depend on earlier replies.
        journal: the finished rows; the length of their replies is the estimate for the others.
        guess: the estimate where there are none, in tokens of all replies. how: where it comes from.
    """
    known = [entry["counts"] for entry in journal]
    replies = sum(one.get("replies", 0) for one in known)
    if replies:
        mean = sum(one.get("completion_tokens", 0) for one in known) / replies
        reply, how = counts["calls"] * mean, f"as the {replies:,} replies so far"
    else:
        reply = guess
    reply = min(reply, counts["calls"] * settings.max_tokens)
    asked = f"{counts['rows']:,} rows in {counts['calls']:,} calls"
    done = f", {counts['done'] - counts['rows']:,} are done" if counts["done"] > counts["rows"] else ""
    print(f"{name}: would ask {asked} of {counts['prompt_tokens']:,} prompt tokens, if each is asked once{done}")
    print(f"{name}: {counts['cut_texts']:,} texts would be cut")
    if counts["guessed_calls"]:
        which = f"{counts['guessed_calls']:,} calls are about windows whose passages depend on earlier replies"
        print(f"{name}: {which}: their tokens are estimated from the order before any reply")
    most = counts["calls"] * settings.max_tokens
    print(f"{name}: replies: estimated {reply:,.0f} tokens ({how}), at most {most:,}")
    if settings.price_in + settings.price_out:
        low, high = (cost(counts["prompt_tokens"], tokens, settings) for tokens in (reply, most))
        print(f"{name}: cost: estimated {low:,.2f}, at most {high:,.2f} if each is asked once")
    if settings.tokens_per_second:
        hours = engine_hours(reply, settings.tokens_per_second)
        shown = f"{hours / settings.actors:,.2f} hours on {settings.actors} engines"
        print(f"{name}: time: estimated {shown}, {hours * max(settings.gpus, 0):,.2f} GPU hours")
    print(f"{name}: nothing was asked")
