"""The Python interface, with a student that ranks texts by their length and starts no engine."""

import asyncio
import threading
from collections import Counter

import pytest

from r2r.api import RankedDocument, Reasons, Reranker
from r2r.config import RerankSettings
from r2r.errors import BadInput
from r2r.student import rank
from r2r.student.rank import Ranked
from r2r.student.record import completed
from r2r.student.scores import by_rank
from tests.llm.dummy import DummyModel


class Ranker:
    """Ranks long texts first. Explains with the query, but cannot explain a text that holds "?"."""

    made: "list[Ranker]" = []  # noqa: RUF012

    def __init__(self, student: str, adapter: str | None, settings: RerankSettings) -> None:
        self.model, self.taught, self.calls = DummyModel(), completed(settings, adapter), []
        Ranker.made.append(self)

    async def check_adapter(self) -> None:
        # The loop of the thread "r2r": the engine must live in the loop that asks it.
        self.loop = asyncio.get_running_loop()
        if self.taught.window == 13:
            raise BadInput("adapter: was made for another model")

    async def rank(self, query: str, texts: list[str], explain: int) -> Ranked:
        assert asyncio.get_running_loop() is self.loop
        self.calls.append((texts, explain))
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        reasons = {
            index: {"direct": f"{query}: {texts[index]}", "comparison": f"Above [{order[-1]}]."}
            for index in order[:explain]
            if "?" not in texts[index]
        }
        return Ranked(order, reasons, Counter(), by_rank(len(order)))


@pytest.fixture(autouse=True)
def stubbed(monkeypatch):
    monkeypatch.setattr(rank, "Ranker", Ranker)
    monkeypatch.setattr(rank, "check_student", lambda *arguments: None)
    Ranker.made = []


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "r2r"]


DOCUMENTS = ["one", "three long", "two 2"]


def test_documents_come_best_first():
    with Reranker("demo") as reranker:
        found = reranker.rank("q", DOCUMENTS)
    assert found == [
        RankedDocument(1, 1, 1, "three long", None),
        RankedDocument(2, 1 / 2, 2, "two 2", None),
        RankedDocument(3, 1 / 3, 0, "one", None),
    ]
    assert Ranker.made[0].calls == [(DOCUMENTS, 0)]


@pytest.mark.parametrize(("top_n", "count"), [(None, 3), (2, 2), (0, 0), (-1, 0), (9, 3)])
def test_top_n_cuts_what_is_returned_not_what_is_ranked(top_n, count):
    with Reranker("demo") as reranker:
        assert [one.index for one in reranker.rank("q", DOCUMENTS, top_n)] == [1, 2, 0][:count]
        assert reranker.rank("q", []) == []
    assert [texts for texts, _ in Ranker.made[0].calls] == [DOCUMENTS]


@pytest.mark.parametrize(
    ("explain", "top_n", "explained"),
    [
        *((False, None, 0), (0, None, 0), (-1, None, 0), (1, None, 1), (2, None, 2), (9, None, 3)),
        *((True, None, 3), (True, 2, 2), (2, 1, 1), (True, 0, 0)),
    ],
)
def test_so_many_documents_are_explained(explain, top_n, explained):
    with Reranker("demo") as reranker:
        found = reranker.rank("why", DOCUMENTS, top_n, explain)
    assert [one.reasons is not None for one in found] == [place < explained for place in range(len(found))]
    assert Ranker.made[0].calls[-1][1] == explained
    if explained:
        assert found[0].reasons == Reasons("why: three long", "", "Above [0].")


def test_no_more_than_a_window_is_explained():
    with Reranker("demo", window=4) as reranker:
        found = reranker.rank("q", ["x" * size for size in range(1, 9)], explain=True)
    assert [one.reasons is not None for one in found] == [True] * 4 + [False] * 4


def test_reasons_that_cannot_be_read_are_none():
    with Reranker("demo") as reranker:
        found = reranker.rank("q", ["long? yes", "short"], explain=True)
    assert [one.reasons for one in found] == [None, Reasons("q: short", "", "Above [1].")]


def test_documents_may_be_mappings():
    given = [
        {"text": "one", "id": 7},
        {"title": "On fleas", "text": "They jump."},
        {"title": None, "text": "two 2"},
        "x",
    ]
    with Reranker("demo") as reranker:
        found = reranker.rank("q", given)
    assert [(one.index, one.text) for one in found] == [(1, "On fleas\nThey jump."), (2, "two 2"), (0, "one"), (3, "x")]


@pytest.mark.parametrize("wrong", ["three long", {"text": "three long"}])
def test_one_document_in_place_of_a_list_is_told(wrong):
    # A text is a sequence of texts for Python, and would be ranked letter by letter.
    with Reranker("demo") as reranker, pytest.raises(BadInput, match=r"^documents: one document; give a list"):
        reranker.rank("q", wrong)


@pytest.mark.parametrize("wrong", [{}, {"title": "On fleas"}, {"text": None}, {"text": 5}])
def test_a_document_without_text_is_told(wrong):
    with (
        Reranker("demo") as reranker,
        pytest.raises(BadInput, match=r"^documents: number 1, counted from 0, has no text"),
    ):
        reranker.rank("q", ["one", wrong])
    assert Ranker.made[0].calls == []


def test_settings_are_those_of_rerank():
    with Reranker("demo", window=8, stride=2) as reranker:
        assert reranker.rank("q", ["x"])[0].rank == 1
    assert Ranker.made[0].taught[:2] == (8, 2)
    with pytest.raises(BadInput, match=r"^Reranker: windov: unknown setting"):
        Reranker("demo", windov=8)
    assert threads() == []


def test_closing_ends_the_engine_and_the_thread():
    reranker = Reranker("demo")
    assert threads() == ["r2r"]
    reranker.close()
    assert threads() == [] and Ranker.made[0].model.closed
    reranker.close()
    with pytest.raises(BadInput, match="is closed"):
        reranker.rank("q", ["one"])


def test_a_start_that_fails_leaves_nothing_behind():
    with pytest.raises(BadInput, match="was made for another model"):
        Reranker("demo", window=13)
    assert threads() == [] and Ranker.made[0].model.closed
