"""The figures of an annotation: `stats.json`, its printed summary, and the estimate of a dry run.

Owns the figures and their wording. `ask.py` counts.

    tell(of(counts, ["evidence is not in its passage"], 0.0, settings), settings)
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from r2r.config import AnnotateSettings
from r2r.rows.journal import Journal
from r2r.rows.pool import share
from r2r.teacher.calls import cost
from r2r.teacher.prompt import fields

# Estimated reply tokens for a passage, and for each text about it. They were counted with Qwen's tokenizer in the
# published replies of a large teacher about MS MARCO.
_PASSAGE, _TEXT = 6, 30


def of(counts: Counter[str], reasons: list[str], speed: float, settings: AnnotateSettings) -> dict[str, Any]:
    """Return the content of stats.json. A share or mean of nothing is None.

    counts: sums over all finished rows. reasons: of the rejects; they are counted by their text before a colon. speed:
    reply tokens per second of this run.
    """
    rows, replies = counts["annotations"], counts["replies"]
    attempts = {name.removeprefix("attempts_"): count for name, count in counts.items() if name.startswith("attempts_")}
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
        "cost": {"spent": cost(counts["prompt_tokens"], counts["completion_tokens"], settings)},
    }


def reasons(stats: dict[str, Any]) -> str:
    """Return the reasons of the rejects with their counts, as one line."""
    return ", ".join(f"{count:,} {reason}" for reason, count in stats["rejects"].items())


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
    if stats["rejects"]:
        print(f"annotate: rejected: {reasons(stats)}", flush=True)
    if (order["same_as_shown"] or 0) > 0.5:
        share = f"{order['same_as_shown']:.0%} of the orders are the order shown"
        print(f"annotate: WARNING: {share}: this teacher may not be ranking at all", flush=True)


def tell_plan(counts: Counter[str], journal: Journal, settings: AnnotateSettings) -> None:
    """Print how much would be asked, and the estimated cost and time.

    counts: `done`, all rows; and of the rows that are not in the journal: rows, calls, prompt_tokens, passages,
    cut_texts. journal: the finished rows; the length of their replies is the estimate for the others.
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
