"""The annotate stage: a teacher orders each query's passages and says why.

Owns the rows' keys, the asking and asking again, and the tables `annotations` and `rejects`. The prompt and the reading
of replies lie beside it; engines and their pool in `r2r.llm`.

    annotate("runs/demo/retrieve-train", "runs/demo/annotate", AnnotateSettings(teacher="demo"))
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import partial

from r2r import datasets, tables
from r2r.config import AnnotateSettings, BadInput
from r2r.datasets.documents import clean
from r2r.llm import Refused, is_server, open_model, pool, resolve
from r2r.llm.prompt import chat_ids, fit, load_tokenizer
from r2r.teacher import parse
from r2r.teacher import prompt as asking

# What each further attempt adds to the temperature.
_HOTTER = 0.3


def annotate(candidates: str | None, out: str, settings: AnnotateSettings) -> None:
    """Write the tables `annotations` and `rejects` into `out`.

    `candidates` is a stage folder or a dataset string; with recorded annotations (`teacher:FILE`), which bring their
    own passages, it must be None.
    """
    recorded = settings.teacher.startswith("teacher:")
    if recorded and candidates is not None:
        raise BadInput(f"candidates: {candidates}: {settings.teacher} brings its own passages; leave candidates out")
    if not recorded and candidates is None:
        raise BadInput("candidates: missing; only a teacher of recorded annotations, teacher:FILE, needs none")
    inputs = {"teacher": settings.teacher} if recorded else {"candidates": candidates, "teacher": settings.teacher}
    stage = tables.Stage("annotate", out, inputs, settings)
    if stage.done:
        return
    tables.clear(out, "annotations", "rejects")
    if recorded:
        annotations, rejects = datasets.read_annotations(settings.teacher)
        tables.write(annotations, out, "annotations")
        tables.write(rejects, out, "rejects")
        stage.finish(rows={"annotations": len(annotations), "rejects": len(rejects)})
        return

    rows = datasets.read_candidates(candidates)
    teacher = stage.manifest["inputs"]["teacher"]["fingerprint"]
    counts = pool.run_rows(rows, Annotator, (settings, teacher), settings, out, "annotate")
    for table in ("annotations", "rejects"):
        if not tables.path(out, table).exists():
            tables.write([], out, table)
    reasons = Counter(reject["reason"] for reject in tables.read(out, "rejects").to_pylist())
    for reason, count in reasons.most_common(5):
        print(f"annotate: rejected {count}: {reason}", flush=True)
    names = ("prompt_tokens", "completion_tokens", "cut_passages", "asked_again", "repaired")
    stage.finish(
        rows={table: counts[table] for table in ("annotations", "rejects")},
        **{name: counts[name] for name in names},
        reject_reasons=dict(reasons),
    )


def dry_run(candidates: str, settings: AnnotateSettings) -> None:
    """Print how many rows would be asked, and the tokens of their prompts, counted with the teacher's tokenizer."""
    if is_server(settings.teacher) or settings.teacher.startswith("teacher:"):
        raise BadInput(f"teacher: {settings.teacher}: a dry run counts with the teacher's tokenizer; name a model")
    tokenizer = load_tokenizer(resolve(settings.teacher, "teacher"))
    tokens = rows = 0
    for row in datasets.read_candidates(candidates).to_pylist():
        message = asking.prompt(row["query"], row["texts"][: settings.passages], settings.reasoning)
        tokens += len(chat_ids(tokenizer, message))
        rows += 1
    print(f"annotate: would ask {rows:,} rows of {tokens:,} prompt tokens, if each is asked once and none is cut")
    print(f"annotate: and get at most {rows * settings.max_tokens:,} tokens back; nothing was asked")


def key(query: str, docids: list[str], texts: list[str], teacher: str, settings: AnnotateSettings) -> str:
    """Return the row's resume key: a sha256 over all that its answer depends on. `teacher` is its fingerprint."""
    asked = {"reasoning", "temperature", "max_tokens", "reason_chars", "seed", "attempts", "engine"}
    sampling = settings.model_dump(include=asked)
    parts = [query, docids, texts, asking.VERSION, teacher, sampling]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


class Annotator:
    """Asks one teacher, known by its fingerprint, about one candidates row at a time, up to `attempts` times."""

    def __init__(self, settings: AnnotateSettings, teacher: str):
        self.settings, self.teacher = settings, teacher
        self.model = open_model(resolve(settings.teacher, "teacher"), settings.engine)

    async def __call__(self, row: dict) -> tuple[str, dict, dict]:
        settings = self.settings
        docids, texts = row["docids"][: settings.passages], row["texts"][: settings.passages]
        known = key(row["query"], docids, texts, self.teacher, settings)
        render = partial(asking.prompt, reasoning=settings.reasoning)
        if is_server(settings.teacher):
            # Its tokenizer is not at hand: what is too long for it, it refuses, and that is recorded.
            message, cut = render(row["query"], texts), 0
        else:
            budget = self.model.max_length - settings.max_tokens
            message, cut = fit(self.model.tokenizer, render, row["query"], texts, budget)
        schema = asking.schema(len(texts), settings.reasoning, settings.reason_chars)

        tokens: Counter = Counter(cut_passages=cut)
        text, reason, attempt = "", "", 0
        for attempt in range(1, settings.attempts + 1):
            try:
                reply = await self.model.complete(
                    message,
                    schema=schema,
                    max_tokens=settings.max_tokens,
                    temperature=min(1.0, settings.temperature + _HOTTER * (attempt - 1)),
                    seed=settings.seed + attempt,
                )
            except Refused as refused:
                reason = f"refused: {refused}"
                break
            tokens.update(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
            text = reply.text
            parsed = parse.parse_reply(text, len(texts), settings.reasoning)
            if parsed.status != "failed":
                tokens["asked_again"] = attempt - 1
                tokens["repaired"] = int(parsed.status == "repaired")
                annotation = {
                    "qid": row["qid"],
                    "query": row["query"],
                    "docids": docids,
                    "texts": texts,
                    "ranking": parsed.order,
                    "direct": parsed.direct,
                    "evidence": parsed.evidence,
                    "comparison": parsed.comparison,
                    "teacher": settings.teacher,
                    "key": known,
                    "attempts": attempt,
                    "prompt_tokens": tokens["prompt_tokens"],
                    "completion_tokens": tokens["completion_tokens"],
                }
                return "annotations", annotation, tokens
            reason = parsed.reason if reply.complete else f"reply longer than {settings.max_tokens} tokens"
        tokens["asked_again"] = attempt - 1
        reject = {"qid": row["qid"], "key": known, "reason": reason, "reply": clean(text)[0], "attempts": attempt}
        return "rejects", reject, tokens
