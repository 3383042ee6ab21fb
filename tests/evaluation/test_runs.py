"""TREC runs: their order, what is refused, and the random and oracle orders."""

import gzip
import random

import pytest

from r2r.errors import BadInput
from r2r.evaluation.runs import completed, oracle, read_run, shuffled


def written(tmp_path, text, name="run.txt"):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_order_is_by_score_and_not_by_rank_or_line(tmp_path):
    file = written(tmp_path, "q Q0 a 1 0.5 t\nq Q0 b 2 1.5 t\n\nq Q0 c 3 1e1 t\n")
    assert read_run(file) == {"q": ["c", "b", "a"]}


def test_equal_scores_go_by_docid_the_last_first(tmp_path):
    assert read_run(written(tmp_path, "q Q0 a 1 1 t\nq Q0 c 2 1 t\nq Q0 b 3 1 t\n")) == {"q": ["c", "b", "a"]}


def test_scores_that_32_bits_cannot_tell_apart_are_equal(tmp_path):
    assert read_run(written(tmp_path, "q Q0 a 1 1.00000000001 t\nq Q0 b 2 1 t\n")) == {"q": ["b", "a"]}


def test_order_is_the_one_trec_eval_finds(tmp_path):
    """A run full of ties: reciprocal rank, asked of trec_eval's own code, must meet our place of each document."""
    import pytrec_eval

    rng = random.Random(3)
    scores = {
        f"d{number}é"[rng.randrange(2) :]: rng.choice([-1.0, 0.1, 0.1 + 1e-12, 3.0, 1e39]) for number in range(40)
    }
    lines = [f"q Q0 {docid} 0 {score!r} t\n" for docid, score in scores.items()]
    ours = read_run(written(tmp_path, "".join(lines)))["q"]
    for place, docid in enumerate(ours, start=1):
        found = pytrec_eval.RelevanceEvaluator({"q": {docid: 1}}, ["recip_rank"]).evaluate({"q": scores})
        assert found["q"]["recip_rank"] == pytest.approx(1 / place)


def test_docids_may_hold_slashes_and_no_break_spaces(tmp_path):
    file = written(tmp_path, "1 Q0 insects/Photo\u00a0taxis_0.txt 1 2.0 t\n")
    assert read_run(file) == {"1": ["insects/Photo\u00a0taxis_0.txt"]}


@pytest.mark.parametrize("name", ["run.txt", "run.txt.gz"])
def test_byte_order_mark_crlf_gzip_and_addresses(tmp_path, name):
    file, text = tmp_path / name, b"\xef\xbb\xbfq Q0 a 1 1 t\r\n\r\nq Q0 b 2 2 t\r\n"
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
    assert read_run(str(file)) == read_run(f"file://{file}") == {"q": ["b", "a"]}


def test_a_gzipped_run_that_is_cut_off_is_refused(tmp_path):
    file = tmp_path / "run.txt.gz"
    file.write_bytes(gzip.compress(b"".join(b"q Q0 d%d 1 1 t\n" % number for number in range(10_000)))[:-9])
    with pytest.raises(BadInput, match=rf"^{file}: cannot be read to its end: "):
        read_run(str(file))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("q Q0 a 1 2.0 t\nq Q0 b 2 1.0\n", ":2: has 5 columns; a TREC run has lines of 'qid Q0 docid rank score tag'"),
        ("q Q0 a 1 high t\n", ":1: score 'high' is not a number; a TREC run has lines of"),
        ("q Q0 a 1 nan t\n", ":1: score 'nan' is not a number"),
        ("q Q0 a 1 2 t\nr Q0 a 1 2 t\nq Q0 a 2 1 t\n", ":3: document a stands twice in query q; a run lists it once"),
        ("\n\n", ": is empty; a TREC run has lines of"),
    ],
)
def test_broken_run_is_refused(tmp_path, text, says):
    file = written(tmp_path, text)
    with pytest.raises(BadInput) as error:
        read_run(file)
    assert str(error.value).startswith(file + says)
    assert "\n" not in str(error.value)


def test_run_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / "run.txt"
    file.write_bytes(b"q Q0 a 1 2 t\nq Q0 \xff 2 1 t\n")
    with pytest.raises(BadInput, match=r"run\.txt:2: is not UTF-8"):
        read_run(str(file))


def test_missing_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"none\.txt: no such file or directory; a TREC run file is needed"):
        read_run(str(tmp_path / "none.txt"))


def test_shuffled_keeps_the_documents_and_forgets_their_order():
    docids = [f"d{number}" for number in range(20)]
    once = shuffled({"q": docids, "r": docids}, seed=1)
    assert sorted(once["q"]) == sorted(docids)
    assert once["q"] != once["r"]
    assert once == shuffled({"r": docids[::-1], "q": docids[::-1]}, seed=1)
    assert once != shuffled({"q": docids, "r": docids}, seed=2)


def test_oracle_takes_an_unjudged_document_for_relevance_0():
    assert oracle({"q": ["bad", "none", "best", "good"]}, {"q": {"bad": -1, "best": 3, "good": 1}}) == {
        "q": ["best", "good", "none", "bad"]
    }


def test_a_run_is_completed_in_the_order_of_the_first():
    run, first = {"p": ["c", "new", "a"], "own": ["z"]}, {"q": ["b", "a"], "p": ["a", "b", "c", "d"]}
    assert completed(run, first) == {"p": ["c", "new", "a", "b", "d"], "q": ["b", "a"], "own": ["z"]}
