"""ir_datasets on a local copy of its files, each time in a new process: it reads IR_DATASETS_HOME once.

.venv/bin/python -m pytest tests/datasets/test_irds.py
"""

import json
import os
import subprocess
import sys
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

_ASK = """
import contextlib, json, sys
from ir_datasets.util import RequestsDownload
from r2r import datasets
from r2r.errors import BadInput

@contextlib.contextmanager
def no_network(self):
    raise ConnectionError("no network")
    yield

RequestsDownload.stream = no_network

def documents(spec, parts):
    return [(at, *document) for part in datasets.corpus_parts(spec, parts)[:4] for at, document in part.read()]

def sizes(spec, parts):
    return [part.size for part in datasets.corpus_parts(spec, parts)]

def place(spec, at):
    return datasets.corpus_parts(spec, 1)[0].place(at)

def queries(spec):
    return datasets.read_queries(spec).to_pylist()

def qrels(spec):
    return datasets.read_qrels(spec).to_pylist()

def excluded(spec):
    return {qid: sorted(docids) for qid, docids in datasets.read_excluded(spec).items()}

for call in sys.argv[1:]:
    try:
        print(json.dumps(eval(call)))
    except BadInput as error:
        print(json.dumps(f"BadInput: {error}"))
"""


@pytest.fixture
def ask(tmp_path):
    """Evaluate calls such as queries("irds:vaswani") with `tmp_path` as IR_DATASETS_HOME."""

    def asked(*calls):
        run = subprocess.run(
            [sys.executable, "-c", _ASK, *calls],
            env=os.environ | {"IR_DATASETS_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return [json.loads(line) for line in run.stdout.splitlines()]

    return asked


def test_vaswani(ask, tmp_path):
    folder = tmp_path / "vaswani"
    folder.mkdir()
    (folder / "docs.txt").write_text("1\ncompact memories\n   /\n2\nan electronic\nanalogue\n   /\n3\nthird\n   /\n")
    (folder / "queries.txt").write_text("1\nMEASUREMENT OF CONSTANT\n/\n2\nRADAR\n/\n")
    (folder / "qrels.txt").write_text("1\n   1   3\n   /\n2\n   2\n   /\n")
    whole, cut, sizes, place, queries, qrels, excluded = ask(
        'documents("irds:vaswani", 1)',
        'documents("irds:vaswani", 5000)',
        'sizes("irds:vaswani", 2)',
        'place("irds:vaswani", 2)',
        'queries("irds:vaswani")',
        'qrels("irds:vaswani")',
        'excluded("irds:vaswani")',
    )
    assert whole == cut
    assert [(at, docid, title, text.strip()) for at, docid, title, text, _ in whole] == [
        (0, "1", "", "compact memories"),
        (1, "2", "", "an electronic\nanalogue"),
        (2, "3", "", "third"),
    ]
    # The sizes of the real collection: ir_datasets knows them without its files.
    assert sizes == [5714, 5715]
    assert place == "irds:vaswani: docs record 3"
    assert [(row["qid"], row["query"].strip()) for row in queries] == [("1", "MEASUREMENT OF CONSTANT"), ("2", "RADAR")]
    assert [tuple(row.values()) for row in qrels] == [("1", "1", 1), ("1", "3", 1), ("2", "2", 1)]
    assert excluded == {}


def test_beir_has_titles_and_splits(ask, tmp_path):
    (tmp_path / "beir" / "nfcorpus").mkdir(parents=True)
    url = {"metadata": {"url": ""}}
    corpus = [{"_id": f"D{number}", "title": "T", "text": f"x {number}"} | url for number in (1, 2)]
    queries = [{"_id": "Q1", "text": "who"} | url, {"_id": "Q2", "text": "what"} | url]
    with zipfile.ZipFile(tmp_path / "beir" / "nfcorpus" / "source.zip", "w") as source:
        for name, rows in {"corpus": corpus, "queries": queries}.items():
            source.writestr(f"nfcorpus/{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        source.writestr("nfcorpus/qrels/test.tsv", "query-id\tcorpus-id\tscore\nQ2\tD1\t2\n")
    spec = "irds:beir/nfcorpus/test"
    documents, cut, queries, qrels = ask(
        f'documents("{spec}", 1)', f'documents("{spec}", 3633)', f'queries("{spec}")', f'qrels("{spec}")'
    )
    assert documents == cut == [[0, "D1", "T", "x 1", False], [1, "D2", "T", "x 2", False]]
    assert queries == [{"qid": "Q2", "query": "what"}]
    assert qrels == [{"qid": "Q2", "docid": "D1", "relevance": 2}]


def test_what_bright_excludes_is_no_judgement(ask, tmp_path):
    folder = tmp_path / "bright"
    folder.mkdir()
    lists = {"gold_ids": [["a"], ["b"]], "excluded_ids": [["c", "d"], ["N/A"]]}
    rows = pa.table({"id": ["0", "1"], "query": ["who", "what"], **lists})
    pq.write_table(rows, folder / "leetcode.queries.parquet")
    qrels, excluded = ask('qrels("irds:bright/leetcode")', 'excluded("irds:bright/leetcode")')
    assert [row["docid"] for row in qrels] == ["a", "b"]
    assert excluded == {"0": ["c", "d"]}


def test_what_is_not_there_is_named_with_its_place(ask, tmp_path):
    licensed, network, queries, unknown, part, fragment = ask(
        'documents("irds:disks45/nocr/trec-robust-2004", 1)',
        'documents("irds:antique/test", 1)',
        'queries("irds:vaswani")',
        'queries("irds:vaswanny")',
        'queries("irds:msmarco-passage")',
        'queries("irds:vaswani#test")',
    )
    assert "its docs are not on disk and cannot be downloaded; put what its licence gives you as " in licensed
    assert f" as {tmp_path}/disks45/corpus, or name a folder that has them in IR_DATASETS_HOME" in licensed
    assert f"antique-collection.txt as {tmp_path}/antique/collection.tsv, or name" in network
    assert f"npl.tar.gz as {tmp_path}/vaswani/npl.tar.gz, or name" in queries
    assert unknown == "BadInput: irds:vaswanny: ir_datasets knows no such ID; ir_datasets list has all"
    assert "irds:msmarco-passage: has no queries in ir_datasets; msmarco-passage/dev, " in part
    assert "an ID of ir_datasets names its split itself" in fragment


def test_a_damaged_file(ask, tmp_path):
    (tmp_path / "vaswani").mkdir()
    (tmp_path / "vaswani" / "npl.tar.gz").write_bytes(b"no archive")
    (told,) = ask('documents("irds:vaswani", 1)')
    assert told.startswith(f"BadInput: irds:vaswani: ir_datasets cannot read its docs under {tmp_path}: ReadError: ")
    assert "\n" not in told
