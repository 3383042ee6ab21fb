"""The demo's world is read like any other collection.

.venv/bin/python -m pytest tests/demo/test_collection.py
"""

import pytest

from r2r.datasets import corpus_parts, read_qrels, read_queries
from r2r.errors import BadInput


def test_parts_hold_every_passage_once():
    whole, parts = ([one for part in corpus_parts("demo", n) for _, one in part.read()] for n in (1, 7))
    assert whole == parts and len({one.docid for one in whole}) == len(whole) == 2600
    assert all(one.title and one.text for one in whole)
    last = corpus_parts("demo", 7)[-1]
    assert last.place(last.size - 1) == "demo: passage 2600"


def test_the_test_split_is_meant_where_none_is_named():
    assert read_queries("demo").equals(read_queries("demo#test"))
    assert set(read_qrels("demo")["qid"].to_pylist()) == set(read_queries("demo")["qid"].to_pylist())


def test_first_queries_of_the_training_split_have_splits_of_their_own():
    every = read_queries("demo#train")["qid"].to_pylist()
    assert len(every) == 2000
    for count in (100, 200, 500, 1000, 2000):
        assert read_queries(f"demo#train{count}")["qid"].to_pylist() == every[:count]


@pytest.mark.parametrize("spec", ["demo#nothing", "demo:here"])
def test_what_is_not_there_is_named(spec):
    with pytest.raises(BadInput, match=f"^{spec}: "):
        read_queries(spec)
