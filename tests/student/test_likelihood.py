"""Query likelihood: what the student reads and writes for a passage, and that training and ranking read it alike."""

import asyncio

import pytest
import torch

from r2r.config import DistillSettings, RerankSettings
from r2r.errors import BadInput
from r2r.llm.prompt import chat_ids, load_tokenizer, text_ids
from r2r.student import likelihood, rank
from r2r.student.examples import collate, example
from r2r.student.likelihood import asked
from r2r.student.model import likelihoods, score
from r2r.student.rank import Ranker
from r2r.student.train import forward
from tests.llm.dummy import DummyModel
from tests.tiny import tiny_model

QUERY = "how long do fleas live"
ROW = {"qid": "q", "query": QUERY, "docids": ["a", "b", "c"], "texts": ["Dogs bark.", "A flea lives 100 days.", "No."]}
ROW |= {"ranking": [2, 1, 3], "direct": ["x", "y", "z"], "evidence": [""] * 3, "comparison": [""] * 3}
SETTINGS = DistillSettings(student="demo", scores="likelihood", reasoning="direct", max_length=640)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(tiny_model())


def test_a_passage_is_read_and_the_query_written(tokenizer):
    prompt, written, cut = asked(tokenizer, QUERY, ROW["texts"][1], 512)
    assert prompt == chat_ids(tokenizer, likelihood.prompt(ROW["texts"][1]))
    assert written == text_ids(tokenizer, QUERY) and not cut


def test_long_passages_and_queries_are_cut(tokenizer):
    long = "river " * 2000
    prompt, written, cut = asked(tokenizer, QUERY, long, 300)
    assert cut and 250 < len(prompt) + len(written) <= 300
    assert len(asked(tokenizer, QUERY, long, 300, most=20).prompt) < len(prompt) - 100
    prompt, written, cut = asked(tokenizer, long, ROW["texts"][0], 300)
    assert cut and len(written) == 150 and len(prompt) + len(written) <= 300


@pytest.mark.parametrize("windows", [True, False])
def test_a_batch_holds_each_passage_with_the_query_after_it(tokenizer, windows):
    shorter = {name: value[:2] if isinstance(value, list) else value for name, value in ROW.items()}
    shorter |= {"ranking": [2, 1], "query": "why do dogs bark at night"}
    examples = [example(tokenizer, ROW, SETTINGS, 0), example(tokenizer, shorter, SETTINGS, 1)]
    batch = collate(examples, tokenizer.pad_token_id, windows)
    assert ("input_ids" in batch) == windows
    passages = [(row["query"], text) for row in (ROW, shorter) for text in row["texts"]]
    kept = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(*(batch[f"asked_{name}"] for name in ("input_ids", "attention_mask")), strict=True)
    ]
    wanted = [asked(tokenizer, query, text, 640) for query, text in passages]
    assert sorted(kept) == sorted(one.prompt + one.written[:-1] for one in wanted)

    # All tokens are as likely, so a passage's score per token of the query is that of one token.
    even = torch.zeros((5, batch["asked_targets"].shape[1], len(tokenizer)))
    scores = likelihoods(even, batch)
    assert scores.shape == (2, 3) and scores[1, 2] == 0
    torch.testing.assert_close(scores[batch["ranks"] >= 0], torch.full((5,), -torch.tensor(len(tokenizer)).log()))


def test_training_scores_what_the_model_itself_says_of_each_passage(tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model(), dtype="float32").eval()
    one = example(tokenizer, ROW, SETTINGS, 3)
    for windows in (True, False):
        batch = collate([one], tokenizer.pad_token_id, windows)
        with torch.no_grad():
            scores = score(model, batch, torch.arange(20))[0]
            pairwise, listwise, generation = forward(model, batch, torch.arange(20), 1.0)[:3]
        assert (generation > 0) == windows and pairwise > 0 and listwise > 0
        for found, (prompt, written, _) in zip(scores.tolist(), one.asked, strict=True):
            with torch.no_grad():
                logprobs = model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            alone = logprobs.gather(1, torch.tensor(written)[:, None]).mean().item()
            assert found == pytest.approx(alone, abs=1e-4)


class Model(DummyModel):
    """Finds the passage that was worth most the likeliest."""

    def __init__(self):
        super().__init__(max_length=8192)
        self.tokenizer = load_tokenizer(tiny_model())

    async def likelihood(self, ids, written):
        assert self.tokenizer.decode(written) == QUERY
        return float(self.tokenizer.decode(ids).split("worth ")[1].split(".")[0])


def test_a_list_of_any_length_is_ranked_without_windows_and_its_first_are_explained(monkeypatch):
    monkeypatch.setattr(rank, "open_label_model", lambda *arguments: Model())
    texts = [f"A thing worth {number}." for number in (3, 9, 4, 1, 5)] * 9
    ranker = Ranker("demo", None, RerankSettings(scores="likelihood", window=4))
    ranked = asyncio.run(ranker.rank(QUERY, texts))
    assert [texts[index] for index in ranked.order[:9]] == [texts[1]] * 9 and ranked.order[:2] == [1, 6]
    assert ranked.counts["windows"] == len(texts) == ranker.so_far["steps"] == ranker.so_far["begun"]
    shown = []

    async def write(query, texts, labels, ranking, counts, parts):
        shown.append((texts, labels, ranking))
        yield "[]"

    ranker._write_reasons = write
    asyncio.run(ranker.rank(QUERY, texts, explain=2))
    assert shown == [([texts[1]] * 4, ["A", "B"], ["A", "B", "C", "D"])]


@pytest.mark.parametrize(("settings", "said"), [({"mode": "generate"}, "mode: generate"), ({"passes": 2}, "passes: 2")])
def test_what_query_likelihood_cannot_do_is_told(settings, said, tmp_path, monkeypatch):
    monkeypatch.setattr(rank, "open_label_model", lambda *arguments: Model())
    with pytest.raises((BadInput, ValueError), match=said):
        Ranker("demo", None, RerankSettings(scores="likelihood", **settings))
