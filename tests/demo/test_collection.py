"""The built-in collection: complete, consistent, and its test queries unseen in training.

.venv/bin/python -m pytest tests/demo/test_collection.py
"""

import csv
import json
from collections import Counter
from pathlib import Path

import r2r.demo

COLLECTION = Path(r2r.demo.__file__).parent / "collection"


def lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (COLLECTION / name).read_text(encoding="utf-8").splitlines()]


def qrels(split: str) -> list[tuple[str, str, int]]:
    with (COLLECTION / "qrels" / f"{split}.tsv").open(encoding="utf-8", newline="") as file:
        return [(row["query-id"], row["corpus-id"], int(row["score"])) for row in csv.DictReader(file, delimiter="\t")]


CORPUS, QUERIES = lines("corpus.jsonl"), lines("queries.jsonl")
QRELS = {split: qrels(split) for split in ("train", "test")}


def test_ids_and_texts_are_unique():
    for values in (
        [document["_id"] for document in CORPUS],
        [document["text"] for document in CORPUS],
        [query["_id"] for query in QUERIES],
        [query["text"] for query in QUERIES],
        [(qid, docid) for split in QRELS.values() for qid, docid, _ in split],
    ):
        assert [value for value, count in Counter(values).items() if count > 1] == []


def test_passages_are_short_and_titled():
    for document in CORPUS:
        assert set(document) == {"_id", "title", "text"}
        assert document["title"]
        assert 40 <= len(document["text"].split()) <= 90, document["_id"]


def test_qrels_name_known_queries_and_documents():
    docids = {document["_id"] for document in CORPUS}
    judged = {qid for split in QRELS.values() for qid, _, _ in split}
    assert judged == {query["_id"] for query in QUERIES}
    assert {docid for split in QRELS.values() for _, docid, _ in split} <= docids
    assert {relevance for split in QRELS.values() for _, _, relevance in split} == {0, 1, 2, 3}


def test_every_query_has_an_answer_and_a_wrong_one():
    for split in QRELS.values():
        best, worst = Counter(), Counter()
        for qid, _, relevance in split:
            best[qid] += relevance >= 2
            worst[qid] += relevance == 0
        assert min(best.values()) >= 1
        assert min(worst.values()) >= 1


def test_train_and_test_share_no_query_and_no_subject():
    train, test = QRELS["train"], QRELS["test"]
    assert len({qid for qid, _, _ in train}) == 40
    assert len({qid for qid, _, _ in test}) == 20
    assert {qid for qid, _, _ in train}.isdisjoint(qid for qid, _, _ in test)
    # A subject's two passages are SUBJECT-1 and SUBJECT-2; a passage is relevant only to a query about its subject.
    about = {split: {docid[:-2] for _, docid, relevance in rows if relevance > 0} for split, rows in QRELS.items()}
    assert about["train"].isdisjoint(about["test"])
