"""Which passages the teacher ranks: the draws, the near-duplicates left out, the positives put in."""

import json

import pytest

from r2r import tables
from r2r.config import AnnotateSettings
from r2r.datasets import open_candidates
from r2r.datasets.documents import document
from r2r.errors import BadInput
from r2r.identity import digest
from r2r.rows.pool import rows_of
from r2r.teacher import ask, passages
from r2r.teacher.passages import WITHOUT_TEXT, Positives, draws, strata

NONE = Positives({}, {})


def settings(**more):
    return AnnotateSettings(**{"teacher": "demo", "passages": 4, **more})


def row(n, **texts):
    docids = [f"d{at}" for at in range(n)]
    return {"qid": "q", "query": "fleas", "docids": docids, "texts": [texts.get(one, f"text {one}") for one in docids]}


def drawn(candidates, positives=NONE, **more):
    """The docids and the counts of each draw."""
    found = list(draws(candidates, settings(**more), positives))
    assert all(len(one["docids"]) == len(one["texts"]) for one in found)
    return [one["docids"] for one in found], [+one["counts"] for one in found]


def test_half_of_the_passages_are_from_the_top_and_one_from_each_stratum_below():
    pool = [f"d{at}" for at in range(100)]
    for number in range(30):
        chosen = strata(pool, 5, "seed", number)
        assert chosen[:3] == ["d0", "d1", "d2"]
        # Two strata: 48 passages from d3 on, 49 from d51 on.
        assert 3 <= int(chosen[3][1:]) < 51 <= int(chosen[4][1:]) < 100
    # No passage of a stratum comes again before all have.
    assert len({strata(pool, 5, "seed", number)[3] for number in range(48)}) == 48
    assert strata(pool, 5, "seed", 48) != strata(pool, 5, "other", 48)
    assert strata(pool[:5], 5, "seed", 3) == pool[:5] and strata(pool[:3], 5, "seed", 0) == pool[:3]
    assert set(strata(pool[:7], 5, "seed", 0)) < set(pool[:7]) and len(strata(pool[:6], 5, "seed", 0)) == 5


def test_a_draw_follows_from_the_seed_and_reaches_down_to_the_depth():
    docids, _ = drawn(row(50), depth=20, draws=6)
    assert docids == drawn(row(50), depth=20, draws=6)[0] != drawn(row(50), depth=20, draws=6, seed=1)[0]
    assert len({tuple(one) for one in docids}) == 6
    assert {one for shown in docids for one in shown} <= {f"d{at}" for at in range(20)}
    for shown in docids:
        assert shown == sorted(shown, key=lambda docid: int(docid[1:])) and shown[:2] == ["d0", "d1"]
    # Without a depth, and where there is nothing to choose from, a draw is another order of the same passages.
    assert drawn(row(50), draws=2)[0] == [["d0", "d1", "d2", "d3"]] * 2
    assert drawn(row(2), depth=20, draws=2)[0] == [["d0", "d1"]] * 2


WORDS = " ".join(f"word{at}" for at in range(40))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (WORDS.upper().replace(" ", "\n"), True),
        (WORDS.replace(" word20", ", word20!"), True),
        # 36 of 37 runs of five words are the same: 36 / 37. With a word changed in the middle, 31 / 41.
        (WORDS + " more", True),
        (WORDS.replace("word20", "other"), False),
        ("", False),
    ],
)
def test_near_duplicates_are_left_out_and_counted(text, same):
    docids, counts = drawn(row(9, d0=WORDS, d2=text), distinct=True)
    assert docids == [["d0", "d1", "d3", "d4"] if same else ["d0", "d1", "d2", "d3"]]
    assert counts == [{"near_duplicates": 1} if same else {}]
    assert drawn(row(9, d0=WORDS, d2=text))[0] == [["d0", "d1", "d2", "d3"]]


def test_short_passages_are_near_duplicates_only_if_their_words_are_the_same():
    docids, counts = drawn(row(6, d0="No.", d1="no", d2="Nor", d3="- No -"), distinct=True, draws=2)
    assert docids == [["d0", "d2", "d4", "d5"]] * 2
    # A passage that is left out is left out of all draws, and counted once.
    assert counts == [{"near_duplicates": 2}, {}]


def test_positives_take_the_place_of_what_was_drawn_last():
    positives = Positives({"q": {"x": 1, "d1": 1, "lost": 1}, "other": {"y": 1}}, {"x": "text of x"})
    (docids,), (counts,) = drawn(row(9), positives)
    assert docids == ["d0", "d1", "d2", "x"]
    assert counts == {
        **{"positives_drawn": 1, "positives_put_in": 1, "positives_from_corpus": 1},
        f"{WITHOUT_TEXT}q lost": 1,
    }
    (one,) = draws(row(9), settings(), positives)
    assert one["texts"][-1] == "text of x" and one["qid"] == "q"
    # A candidate from further down keeps its place in the retrieved order, and its own text.
    (docids,), (counts,) = drawn(row(9), Positives({"q": {"d7": 1}}, {"d7": "another text"}), depth=5)
    assert docids[:2] == ["d0", "d1"] and docids[-1] == "d7" and len(docids) == 4
    assert counts == {"positives_put_in": 1}
    # Short lists grow.
    assert drawn(row(2), positives)[0] == [["d0", "d1", "x"]]


def test_positives_are_at_most_half_of_what_is_put_in_the_highest_grades_first():
    grades = {f"x{at}": 1 for at in range(9)} | {"best": 3}
    positives = Positives({"q": grades}, dict.fromkeys(grades, "text"))
    docids, counts = drawn(row(9), positives, draws=8)
    assert all(shown[:2] == ["d0", "d1"] and "best" in shown for shown in docids)
    assert len({tuple(shown) for shown in docids}) > 2
    assert counts[0] == {"positives_put_in": 2, "positives_from_corpus": 2, "positives_left_out": 8}
    # Those that retrieval found all stay.
    found = Positives({"q": {f"d{at}": 1 for at in range(9)}}, {})
    assert drawn(row(9), found)[0] == [["d0", "d1", "d2", "d3"]]


def test_of_near_duplicates_the_positive_stays():
    positives = Positives({"q": {"d5": 1}}, {})
    docids, counts = drawn(row(9, d1="Text d5!"), positives, distinct=True)
    assert docids == [["d0", "d2", "d3", "d5"]]
    assert counts == [{"near_duplicates": 1, "positives_put_in": 1}]
    # Of two positives, one.
    positives = Positives({"q": {"x": 1, "d1": 1}}, {"x": "Text, d1."})
    docids, counts = drawn(row(9), positives, distinct=True)
    assert docids == [["d0", "d2", "d3", "x"]]
    assert counts == [{"near_duplicates": 1, "positives_put_in": 1, "positives_from_corpus": 1}]


def opened(candidates, corpus, chosen):
    return passages.drawn(open_candidates(candidates), corpus, chosen)


@pytest.fixture
def candidates(tmp_path):
    rows = [row(9) | {"qid": qid, "scores": [1.0] * 9} for qid in ("q1", "q2", "q3")]
    tables.write(rows, tmp_path / "candidates", "candidates")
    return str(tmp_path / "candidates")


def test_rows_are_as_they_were_at_the_defaults(candidates):
    assert digest(settings(passages=5).what()) == "9b0053e53547cf0305c5b0a1bc2fc86d5c2e4035726c845a665b9ba627b1bd3e"
    rows = opened(candidates, None, settings())
    first = next(rows_of(rows.parts(2)))
    assert rows.qids == ["q1", "q2", "q3"] and len(first["docids"]) == 9 and "draw" not in first
    assert ask.key(first, "v", 4) == digest(["fleas", first["docids"][:4], first["texts"][:4], "v"])


def test_each_draw_is_a_row_with_a_key_of_its_own(candidates):
    rows = opened(candidates, None, settings(draws=3, seed=7))
    found = list(rows_of(rows.parts(2)))
    assert [one["qid"] for one in found] == rows.qids == ["q1"] * 3 + ["q2"] * 3 + ["q3"] * 3
    # The same passages three times; the queries are the same text.
    keys = [ask.key(one, "v", 4) for one in found]
    assert len(set(keys)) == 3 and keys[:3] == keys[3:6]
    orders = [ask.passage_orders(one, key, settings()) for one, key in zip(found, keys, strict=True)]
    assert orders[0] == [[0, 1, 2, 3]] and all(sorted(one[0]) == [0, 1, 2, 3] for one in orders)
    assert len({tuple(one[0]) for one in orders}) == 3


@pytest.fixture
def here(monkeypatch):
    """Read the corpus in this process."""

    def on_workers(blocks, worker, arguments, *others, **options):
        actor = worker(*arguments)
        return [json.loads(json.dumps(actor(block))) for block in blocks]

    monkeypatch.setattr(passages, "on_workers", on_workers)
    monkeypatch.setattr(passages, "_cores", lambda: 1)


def test_the_texts_of_positives_are_those_that_would_have_been_retrieved(here, candidates, tmp_path):
    lines = [{"_id": "x", "title": "Fleas", "text": "They jump."}, {"_id": "y", "title": "", "text": "Dogs bark."}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("q1 0 x 1\nq2 0 y 0\nq2 0 lost 2\nq9 0 y 1\n")
    chosen = settings(positives=str(qrels))
    found = list(rows_of(opened(candidates, f"beir:{tmp_path}", chosen).parts(9)))
    assert [one["docids"][-1] for one in found] == ["x", "d3", "d3"]
    assert found[0]["texts"][-1] == passages.contents(document("x", "Fleas", "They jump.")) == "Fleas\nThey jump."
    assert +found[1]["counts"] == {f"{WITHOUT_TEXT}q2 lost": 1}
    # Without a corpus, no text is found.
    assert +next(rows_of(opened(candidates, None, chosen).parts(9)))["counts"] == {f"{WITHOUT_TEXT}q1 x": 1}
    qrels.write_text("q9 0 y 1\n")
    with pytest.raises(
        BadInput, match=r"positives: .*qrels.txt: has no relevant passage for any query of the candidates"
    ):
        opened(candidates, None, chosen)
