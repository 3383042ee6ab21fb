"""The figures of an annotation: `stats.json`, its printed summary, and the estimate of a dry run.

Owns the figures and their wording. `ask.py` counts.

    tell(of(counts, ["evidence is not in its passage"], 0.0, settings), settings)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from r2r.config import AnnotateSettings
from r2r.llm.probe import Probed
from r2r.rows.journal import Journal
from r2r.rows.pool import share
from r2r.teacher.ask import cost
from r2r.teacher.passages import WITHOUT_TEXT
from r2r.teacher.prompt import fields

# Estimated reply tokens for a passage, and for each text about it. They were counted with Qwen's tokenizer in the
# published replies of a large teacher about MS MARCO.
_PASSAGE, _TEXT = 6, 30
# Most positives without a text that are named in print.
_NAMED = 5


def of(counts: Counter[str], reasons: list[str], speed: float, settings: AnnotateSettings) -> dict[str, Any]:
    """Return the content of stats.json. A share or mean of nothing is None.

    counts: sums over all finished rows, and over the probes. reasons: of the rejects; they are counted by their text
    before a colon. speed: reply tokens per second of this run.
    """
    rows, replies = counts["annotations"], counts["replies"]
    paid_in, paid_out = (counts[name] + counts[f"probe_{name}"] for name in ("prompt_tokens", "completion_tokens"))
    attempts = {name.removeprefix("attempts_"): count for name, count in counts.items() if name.startswith("attempts_")}
    drawn: dict[str, Any] = {"near_duplicates": counts["near_duplicates"]} if settings.distinct else {}
    if settings.positives:
        kinds = ("drawn", "put_in", "from_corpus", "left_out")
        without = [name.removeprefix(WITHOUT_TEXT) for name in counts if name.startswith(WITHOUT_TEXT)]
        positives = {kind: counts[f"positives_{kind}"] for kind in kinds}
        drawn["positives"] = positives | {"without_text": sorted(without)}
    return {
        "rows": {"annotations": rows, "rejects": counts["rejects"]},
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
        "cost": {"spent": cost(paid_in, paid_out, settings)},
        "probes": {name: counts[f"probe_{name}"] for name in ("calls", "prompt_tokens", "completion_tokens")},
        **({"passages": drawn} if drawn else {}),
    }


def reasons(stats: dict[str, Any]) -> str:
    """Return the reasons of the rejects with their counts, as one line."""
    said = ", ".join(f"{count:,} {reason}" for reason, count in stats["rejects"].items())
    return f"{said} (the first was {stats['first_refusal']})" if stats["first_refusal"] else said


def tell(stats: dict[str, Any], settings: AnnotateSettings) -> None:
    """Print the summary, and a warning if most orders are the order shown."""
    tokens, evidence, order = stats["tokens"], stats["evidence"], stats["order"]
    said = [f"{tokens['completion']:,} tokens written ({tokens['completion_per_second']:,.0f} a second in this run)"]
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


def tell_probe(found: Probed) -> None:
    """Print what a server takes, and why not more."""
    dialect = found.dialect
    takes = [
        f"response_format {dialect.response_format}",
        "a seed" if dialect.seed else "no seed",
        f"temperature {dialect.temperature}",
        str(dialect.max_tokens),
        f"content as {dialect.content}",
    ]
    cost = f"{found.calls} call{'s' * (found.calls > 1)}, {found.prompt_tokens + found.completion_tokens:,} tokens"
    print(f"annotate: the server takes {', '.join(takes)} ({cost})", flush=True)
    if found.refusal:
        print(f"annotate: its first refusal: {found.refusal}", flush=True)


def tell_plan(counts: Counter[str], journal: Journal, settings: AnnotateSettings) -> None:
    """Print how much would be asked, and the estimated cost and time.

    counts: `done`, all rows; and of the rows that are not in the journal: rows, calls, prompt_tokens, passages,
    cut_texts, and guessed_calls, whose passages depend on earlier replies. journal: the finished rows; the length of
    their replies is the estimate for the others.
    """
    known = [entry["counts"] for entry in journal]
    replies = sum(one.get("replies", 0) for one in known)
    if replies:
        mean = sum(one.get("completion_tokens", 0) for one in known) / replies
        reply, how = counts["calls"] * mean, f"as the {replies:,} replies so far"
    else:
        reply = counts["passages"] * (_PASSAGE + _TEXT * len(fields(settings.reasoning)))
        how = f"at {_TEXT} for each text"
    reply = min(reply, counts["calls"] * settings.max_tokens)
    asked = f"{counts['rows']:,} rows in {counts['calls']:,} calls"
    done = f", {counts['done'] - counts['rows']:,} are done" if counts["done"] > counts["rows"] else ""
    print(f"annotate: would ask {asked} of {counts['prompt_tokens']:,} prompt tokens, if each is asked once{done}")
    print(f"annotate: {counts['cut_texts']:,} queries and passages would be cut")
    if counts["guessed_calls"]:
        which = f"{counts['guessed_calls']:,} calls are about windows whose passages depend on earlier replies"
        print(f"annotate: {which}: their tokens are estimated from the order before any reply")
    most = counts["calls"] * settings.max_tokens
    print(f"annotate: replies: estimated {reply:,.0f} tokens ({how}), at most {most:,}")
    if settings.price_in + settings.price_out:
        low, high = (cost(counts["prompt_tokens"], tokens, settings) for tokens in (reply, most))
        print(f"annotate: cost: estimated {low:,.2f}, at most {high:,.2f} if each is asked once")
    if settings.tokens_per_second:
        hours = reply / settings.tokens_per_second / 3600
        shown = f"{hours / settings.actors:,.2f} hours on {settings.actors} engines"
        print(f"annotate: time: estimated {shown}, {hours * max(settings.gpus, 0):,.2f} GPU hours")
    print("annotate: nothing was asked")
