"""The interface to models: every kind has its signatures, and the stages need no more than it."""

import asyncio
import inspect
import json
from functools import partial
from typing import Any, get_type_hints

import pytest

from r2r.config import AnnotateSettings, RerankSettings
from r2r.errors import BadInput
from r2r.llm import LabelModel, Model, Refused, open_label_model, open_model
from r2r.llm.engine import LocalModel
from r2r.llm.server import RemoteModel
from r2r.student import rank
from r2r.teacher import ask
from tests.llm.dummy import DummyModel

# With a model's name, so that the client need not ask the server for one.
ADDRESS = "http://127.0.0.1:1/v1#qwen"


def members(protocol):
    return [(name, member) for name, member in inspect.getmembers(protocol) if not name.startswith("_")]


@pytest.mark.parametrize(
    ("kind", "protocol"), [(RemoteModel, Model), (LocalModel, LabelModel), (DummyModel, LabelModel)]
)
def test_every_kind_of_model_has_the_protocols_signatures(kind, protocol):
    assert {"complete", "close", "max_length"} <= {name for name, _ in members(protocol)}
    for name, member in members(protocol):
        if isinstance(member, property):
            assert get_type_hints(kind)[name] == get_type_hints(member.fget)["return"]
        else:
            own = getattr(kind, name)
            assert inspect.signature(own, eval_str=True) == inspect.signature(member, eval_str=True)
            assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(member)


def test_a_server_is_a_model_without_log_probabilities():
    model = open_model(ADDRESS)
    assert isinstance(model, RemoteModel) and isinstance(model, Model) and not isinstance(model, LabelModel)
    assert isinstance(DummyModel(), LabelModel)
    with pytest.raises(BadInput, match=r"^http://127\.0\.0\.1:1/v1#qwen: gives no log-probabilities of labels; name"):
        open_label_model(ADDRESS)


@pytest.mark.parametrize("setting", ["grammar", "start"])
def test_what_a_server_cannot_do_is_named(setting):
    unsupported: dict[str, Any] = {setting: "C > A"}
    with pytest.raises(BadInput, match=f"^{setting}: a server cannot follow it; "):
        asyncio.run(open_model(ADDRESS).complete("Rank.", max_tokens=9, **unsupported))


def test_a_dummy_keeps_the_contract():
    model = DummyModel()
    reply = asyncio.run(model.complete("Rank.", max_tokens=100))
    assert reply == asyncio.run(DummyModel().complete("Rank.", max_tokens=100))
    assert reply.complete and reply.completion_tokens == len(reply.text) == 64
    assert not asyncio.run(model.complete("Rank.", max_tokens=63)).complete
    with pytest.raises(Refused, match="exceed 4096"):
        asyncio.run(model.complete("Rank.", max_tokens=4096))


def written(numbers):
    texts = {"direct_answer_sentence": "", "direct_reason": "It fits.", "listwise_reason": "Better than [1]."}
    return json.dumps({"ranked_passages": [{"identifier": number, **texts} for number in numbers]})


def test_a_row_is_annotated_without_an_engine(monkeypatch):
    monkeypatch.setattr(ask.calls, "open_model", lambda *arguments: DummyModel(lambda prompt: written([2, 1]), 8192))
    settings = AnnotateSettings(teacher="demo", passages=2)
    annotator = ask.Annotator(settings, partial(ask.key, version="v2-test", passages=2), None)
    row = {"qid": "q1", "query": "how long", "docids": ["a", "b"], "texts": ["Dogs bark.", "A flea lives."]}
    answer = asyncio.run(annotator(row))
    assert answer is not None
    table, annotation, counts = answer
    assert (table, annotation["ranking"], counts["replies"]) == ("annotations", [2, 1], 1)


def test_a_query_is_ranked_without_an_engine(monkeypatch):
    monkeypatch.setattr(rank, "open_label_model", lambda *arguments: DummyModel(max_length=8192))
    texts = [f"A thing worth {number}." for number in range(30)]
    first, second = (asyncio.run(rank.Ranker("demo", None, RerankSettings()).rank("q", texts)) for _ in range(2))
    assert first.order == second.order != list(range(30))
    assert sorted(first.order) == list(range(30)) and first.counts["windows"] == 3
