"""The demo's world is read like any other collection.

.venv/bin/python -m pytest tests/demo/test_collection.py
"""

import pytest

from demo_models.world import write
from r2r import builtin
from r2r.datasets import corpus_parts, read_qrels, read_queries
from r2r.errors import BadInput


def test_parts_hold_every_passage_once():
    whole, parts = ([one for part in corpus_parts("demo", n) for _, one in part.read()] for n in (1, 7))
    assert whole == parts and len({one.docid for one in whole}) == len(whole) == 2600
    assert all(one.title and one.text for one in whole)


def test_the_test_split_is_meant_where_none_is_named():
    assert read_queries("demo").equals(read_queries("demo#test"))
    assert set(read_qrels("demo")["qid"].to_pylist()) == set(read_queries("demo")["qid"].to_pylist())


def test_first_queries_of_the_training_split_have_splits_of_their_own():
    every = read_queries("demo#train")["qid"].to_pylist()
    assert len(every) == 2000
    for count in (100, 200, 500, 1000, 2000):
        assert read_queries(f"demo#train{count}")["qid"].to_pylist() == every[:count]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("demo#nothing", "world: has no qrels/nothing.tsv for the split #nothing; it has #dev, "),
        ("demo:here", "demo:here: "),
    ],
)
def test_what_is_not_there_is_named(spec, said):
    with pytest.raises(BadInput, match=said):
        read_queries(spec)


def test_the_files_are_those_that_the_code_makes(tmp_path):
    write(tmp_path)
    shipped = builtin.COLLECTIONS["demo"]
    made = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file())
    assert made == sorted(file.relative_to(shipped) for file in shipped.rglob("*") if file.is_file())
    for file in made:
        assert (tmp_path / file).read_bytes() == (shipped / file).read_bytes(), file
