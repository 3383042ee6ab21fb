"""A student on one query: scored and written orders, reasons, and the check of its adapter.

The model is a stand-in that reads its prompt. tests/integration/test_dl19.py uses a real one.
"""

import asyncio
import json
import random
import re

import pytest
from fastapi.testclient import TestClient

from r2r.config import RerankSettings, ServeSettings
from r2r.errors import BadInput
from r2r.llm import Refused, Reply
from r2r.llm.prompt import load_tokenizer
from r2r.serving.app import application
from r2r.student import rank, rerank
from r2r.student.prompt import LABELS
from r2r.student.rank import Ranker
from r2r.student.scores import FirstStage, by_rank
from r2r.student.strategies import STRATEGIES
from tests.student.grammars import allows
from tests.tiny import tiny_model


class Model:
    """Scores a passage by the number in it, and finds the passages in its prompt like a student."""

    max_length = 8192

    def __init__(self):
        self.tokenizer = load_tokenizer(tiny_model())
        self.prompts, self.order, self.reasons = [], None, {}

    def _worth(self, message):
        return [int(number) for number, _ in re.findall(r"worth (\d+)\. \[([A-T])\]", message)]

    async def label_logprobs(self, ids, labels):
        self.prompts.append(self.tokenizer.decode(ids))
        worth = self._worth(self.prompts[-1])
        assert len(worth) == len(labels)
        return worth, 7

    async def complete(self, message, *, max_tokens, grammar, start=""):
        self.prompts.append(message + start)
        worth = self._worth(message)
        if "one ::= " in grammar:
            best = sorted(range(len(worth)), key=lambda place: -worth[place])
            text = self.order or " > ".join(LABELS[place] for place in best)
            assert allows(grammar, text)
        else:
            labels = re.findall(r'"passage\\":\\"([A-T])', grammar)
            at = {label: worth[LABELS.index(label)] for label in labels}
            listed = [
                {
                    "passage": label,
                    "evidence": f"worth {at[label]}",
                    "direct": f"It is worth {at[label]}.",
                    "comparison": "Above [A].",
                }
                | self.reasons
                for label in labels
            ]
            text = json.dumps(listed, separators=(",", ":"))
        return Reply(text, True, 100, 10, 5)

    async def growing(self, message, *, max_tokens, grammar, start=""):
        whole = await self.complete(message, max_tokens=max_tokens, grammar=grammar, start=start)
        for end in range(1, len(whole.text) + 1):
            self.written = end
            yield whole._replace(text=whole.text[:end])


@pytest.fixture
def ranker(monkeypatch):
    model = Model()
    monkeypatch.setattr(rank, "open_label_model", lambda *arguments: model)
    return lambda **settings: Ranker("demo", None, RerankSettings(**settings))


def passages(n):
    return [f"A thing worth {number}." for number in random.Random(n).sample(range(1000, 2000), n)]


def best_first(texts):
    return sorted(range(len(texts)), key=lambda index: texts[index], reverse=True)


@pytest.mark.parametrize("n", [1, 2, 20, 25, 45])
@pytest.mark.parametrize(
    "settings", [{}, {"stride": 10}, {"mode": "generate"}, {"order_position": "last", "reason_chars": 20}]
)
def test_each_way_to_rank_ranks(ranker, n, settings):
    texts = passages(n)
    ranked = asyncio.run(ranker(**settings).rank("what is it worth", texts))
    assert sorted(ranked.order) == list(range(n)) and ranked.order[:10] == best_first(texts)[:10]
    # A stride is that of a sliding window.
    strategy = STRATEGIES["sliding" if "stride" in settings else "parallel"]
    assert ranked.counts["windows"] == (strategy.calls(n, 20, 10) if n > 1 else 0)
    if not settings:
        assert ranked.counts["completion_tokens"] == ranked.counts["windows"]


def test_reasons_are_asked_for_in_a_language(ranker):
    asking = ranker(language="Norwegian Bokmål")
    asyncio.run(asking.rank("q", passages(3), explain=1))
    assert asking.model.prompts and all("reasons in Norwegian Bokmål." in one for one in asking.model.prompts)


@pytest.mark.parametrize("settings", [{}, {"mode": "generate"}, {"order_position": "last", "reason_chars": 20}])
def test_a_window_is_scored_in_several_orders_and_explained_from_the_first(ranker, settings):
    texts = passages(25)
    once, asking = ranker(**settings), ranker(passes=3, **settings)
    first = asyncio.run(once.rank("q", texts, explain=3))
    start = len(asking.model.prompts)
    ranked = asyncio.run(asking.rank("q", texts, explain=3))
    # The stand-in scores passages alike wherever they stand.
    assert ranked.order == first.order and ranked.reasons == first.reasons
    assert ranked.counts["windows"] == 3 * first.counts["windows"] == 9
    # The groups, then the final.
    shown = [re.findall(r"A thing worth (\d+)\. \[", prompt) for prompt in asking.model.prompts[start:]]
    assert len({tuple(one) for one in shown if sorted(one) == sorted(shown[0])}) == 3


def test_scores_of_the_passes_are_averaged_by_passage():
    shown = [7, 2, 5]
    asked = rank.orders(shown, 4)
    assert asked[:2] == [shown, [5, 2, 7]] and asked[3] == asked[2][::-1] and rank.orders(shown, 4) == asked
    assert all(sorted(order) == sorted(shown) for order in asked) and rank.orders(shown, 1) == [shown]
    # A student that prefers the first place by 2 ranks by worth after a pass and its reverse.
    worth = {7: 0.0, 2: 0.5, 5: 1.0}
    passes = [
        rank.Window(order, [worth[index] + bonus for index, bonus in zip(order, (2, 1, 0), strict=True)], "")
        for order in asked[:2]
    ]
    assert rank.merged(passes[:1]) == [2.0, 1.5, 1.0] and rank.merged(passes) == [1.0, 1.5, 2.0]


@pytest.mark.parametrize("strategy", ["sliding", "parallel"])
def test_scores_fall_along_the_order_and_say_how_many_are_expected_below(ranker, strategy):
    texts = passages(45)
    ranked = asyncio.run(ranker(strategy=strategy).rank("q", texts))
    assert ranked.order[:10] == best_first(texts)[:10] and ranked.counts["uncalibrated"] == 1
    assert len(ranked.scores) == 45 and sum(ranked.scores) / 45 == pytest.approx(0.5)
    assert ranked.scores == sorted(ranked.scores, reverse=True) and 0 <= ranked.scores[-1] < ranked.scores[0] <= 1
    # Worths are whole numbers, so at a temperature of 1 the best is above nearly all others for sure.
    assert ranked.scores[0] > 0.95


def test_the_recorded_temperature_flattens_the_scores(ranker):
    asking, texts = ranker(), passages(5)
    sharp = asyncio.run(asking.rank("q", texts)).scores
    asking.taught = asking.taught._replace(temperature=1e6)
    ranked = asyncio.run(asking.rank("q", texts))
    assert max(ranked.scores) < 0.51 < sharp[0] and ranked.counts["uncalibrated"] == 0


@pytest.mark.parametrize("settings", [{"score": "rank"}, {"mode": "generate"}])
def test_without_log_probabilities_or_if_told_so_scores_are_by_rank(ranker, settings):
    ranked = asyncio.run(ranker(**settings).rank("q", passages(25)))
    assert ranked.scores == by_rank(25) and not ranked.counts["uncalibrated"]


@pytest.mark.parametrize("settings", [{}, {"score": "rank"}, {"strategy": "parallel"}])
def test_serve_and_rerank_give_the_same_scores(ranker, settings):
    texts = passages(45)
    row = {"qid": "q1", "query": "q", "docids": [f"D{index}" for index in range(45)], "texts": texts}
    reranker = rerank.Reranker("demo", None, RerankSettings(**settings), lambda row: "k")
    _, ranking, _ = asyncio.run(reranker(row))
    asking = Ranker("demo", None, ServeSettings(**settings))
    app = application(asking, asking.settings, "demo")
    answer = TestClient(app).post("/v1/rerank", json={"query": "q", "documents": texts}).json()["results"]
    assert [f"D{one['index']}" for one in answer] == ranking["docids"]
    assert [one["relevance_score"] for one in answer] == ranking["scores"]


def test_a_first_stage_is_fused_in_and_what_leads_then_is_explained(ranker):
    asking, texts = ranker(), passages(5)
    alone = asyncio.run(asking.rank("q", texts))
    worst = alone.order[-1]
    first = FirstStage([float(index == worst) for index in range(5)], 1)
    ranked = asyncio.run(asking.rank("q", texts, 1, first))
    # The others have equal scores, and keep the student's order.
    assert ranked.order == [worst, *alone.order[:-1]] and ranked.scores == [1, 0, 0, 0, 0]
    assert list(ranked.reasons) == [worst]


def test_windows_are_counted_on_the_way(ranker):
    asking = ranker(passes=2)
    score, seen = asking.model.label_logprobs, []

    async def label_logprobs(ids, labels):
        seen.append(dict(asking.so_far))
        return await score(ids, labels)

    asking.model.label_logprobs = label_logprobs
    asyncio.run(asking.rank("q", passages(45)))
    assert seen[0]["begun"] == 8 and seen[-1]["steps"] >= 6 and asking.so_far == {"begun": 8, "steps": 8}

    async def refuse(ids, labels):
        raise Refused("too long")

    asking.model.label_logprobs = refuse
    with pytest.raises(Refused):
        asyncio.run(asking.rank("q", passages(45)))
    asyncio.run(asking.rank("q", passages(1)))
    assert asking.so_far == {"begun": 8, "steps": 8}


def test_a_written_order_that_repeats_a_label_is_repaired_and_one_that_says_too_little_changes_nothing(ranker):
    texts = passages(4)
    asking = ranker(mode="generate")
    asking.model.order = "D > B > D > A"
    ranked = asyncio.run(asking.rank("q", texts))
    assert ranked.order == [3, 1, 0, 2] and ranked.counts["order repaired"] == 1
    asking.model.order = "D > D > D > D"
    ranked = asyncio.run(asking.rank("q", texts))
    assert ranked.order == [0, 1, 2, 3] and ranked.counts["order failed"] == 1


@pytest.mark.parametrize("settings", [{}, {"order_position": "last", "reason_chars": 20}])
def test_reasons_are_those_of_the_first_and_name_passages_by_index(ranker, settings):
    texts = passages(25)
    asking = ranker(**settings)
    ranked = asyncio.run(asking.rank("q", texts, explain=3))
    assert list(ranked.reasons) == ranked.order[:3] == best_first(texts)[:3]
    shown = [texts.index(f"{text}.") for text in re.findall(r"(A thing worth \d+)\. \[", asking.model.prompts[-1])]
    for index, reason in ranked.reasons.items():
        assert reason["evidence"] in texts[index]
        assert reason["comparison"] == f"Above [{shown[0]}]."
    assert ranked.counts["explanations"] == ranked.counts["explanations_asked"] == 3
    assert ranked.counts["evidence"] == ranked.counts["verbatim"] == ranked.counts["comparisons"] == 3
    assert not ranked.counts["comparisons_false"]


def test_reasons_are_asked_for_after_the_prompt_that_gave_the_order(ranker):
    asking = ranker()
    asyncio.run(asking.rank("q", passages(25), explain=2))
    scored, explained = asking.model.prompts[-2:]
    message, start = explained.rsplit("\n\n", 1)[0], explained[explained.index("Then give") :]
    assert message in scored and " > " in start


@pytest.mark.parametrize("stride", [20, 10])
@pytest.mark.parametrize("n", [20, 21, 41, 61])
def test_the_first_was_scored_and_can_be_explained_whatever_the_stride(ranker, n, stride):
    texts = sorted(passages(n), reverse=True)
    ranked = asyncio.run(ranker(stride=stride).rank("q", texts, explain=3))
    assert ranked.order == list(range(n)) and list(ranked.reasons) == [0, 1, 2]


def test_passages_to_explain_may_be_named(ranker):
    texts = passages(25)
    asking = ranker()
    best = asyncio.run(asking.rank("q", texts)).order
    ranked = asyncio.run(asking.rank("q", texts, [best[4], best[1], best[-1]]))
    # The last one is not in the window that ranks first.
    assert list(ranked.reasons) == [best[1], best[4]] and ranked.counts["explanations_asked"] == 2
    assert asyncio.run(asking.rank("q", texts, [best[-1]])).reasons == {}


@pytest.mark.parametrize("settings", [{}, {"order_position": "last", "reason_chars": 20}])
def test_a_ranking_in_steps_gives_the_order_then_a_reason_at_a_time_and_ends_as_in_one(ranker, settings):
    texts = passages(5)
    asking = ranker(**settings)

    async def steps():
        return [(dict(one.reasons), one.order) async for one in asking.steps("q", texts, 3)]

    found, whole = asyncio.run(steps()), asyncio.run(ranker(**settings).rank("q", texts, 3))
    sizes = [len(reasons) for reasons, _ in found]
    assert sizes == ([0, 3] if settings else [0, 1, 2, 3, 3])
    assert all(order == whole.order for _, order in found) and found[-1][0] == whole.reasons
    assert all(reasons.items() <= whole.reasons.items() for reasons, _ in found)


def test_a_ranking_in_steps_counts_as_in_one(ranker):
    asking = ranker()

    async def last():
        return [one async for one in asking.steps("q", passages(5), 3)][-1]

    assert asyncio.run(last()).counts == asyncio.run(ranker().rank("q", passages(5), 3)).counts


def test_a_ranking_in_steps_that_is_closed_writes_no_further(ranker):
    asking = ranker()

    async def first():
        steps = asking.steps("q", passages(5), 3)
        while not (await anext(steps)).reasons:
            pass
        stopped = asking.model.written
        await steps.aclose()
        return stopped

    assert asyncio.run(first()) == asking.model.written


@pytest.mark.parametrize(
    ("said", "column", "count"),
    [
        ({"evidence": "worth nothing"}, "evidence", {"evidence": 2, "verbatim": 0}),
        ({"evidence": "N/A"}, "evidence", {"evidence": 0, "verbatim": 0}),
        ({"comparison": "Above [D]."}, "comparison", {"comparisons": 2, "comparisons_false": 2}),
        ({"comparison": "Above [2]."}, "comparison", {"comparisons": 2, "comparisons_false": 2}),
    ],
)
def test_what_is_false_of_reasons_is_left_out_and_counted(ranker, said, column, count):
    asking = ranker()
    asking.model.reasons = said
    ranked = asyncio.run(asking.rank("q", passages(3), explain=2))
    assert all(reason[column] == "" and reason["direct"] for reason in ranked.reasons.values())
    assert {name: ranked.counts[name] for name in count} == count


def test_reasons_that_cannot_be_read_are_counted_by_what_is_wrong(ranker):
    asking = ranker()
    asking.model.reasons = {"direct": " "}
    ranked = asyncio.run(asking.rank("q", passages(3), explain=2))
    assert ranked.reasons == {} and ranked.counts["failed: direct is empty"] == 2


def test_a_student_without_reasons_ranks_and_does_not_explain(ranker):
    texts = passages(25)
    asking = ranker(reasoning="none", order_position="last")
    ranked = asyncio.run(asking.rank("q", texts))
    assert ranked.order[:10] == best_first(texts)[:10]
    # The order is read right after the prompt: such a student was taught to write nothing before it.
    assert all(prompt.endswith("assistant\n") for prompt in asking.model.prompts)
    with pytest.raises(Refused, match="explain: the student gives no reasons"):
        asyncio.run(asking.rank("q", texts, explain=1))


ANSWERS = {"adapted": [-1.0, -2.0], "base": [-2.0, -1.0], "other": [-1.2, -1.9]}


@pytest.fixture
def adapted(ranker, tmp_path):
    """A ranker whose adapter has one recorded answer, with an engine that gives the answer of that name."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")

    def make(engine, **check):
        recorded = {"prompt": [1, 2], "labels": [3, 4], "logprobs": ANSWERS["adapted"], "base": ANSWERS["base"]}
        (tmp_path / "check.json").write_text(json.dumps({"prompts": [recorded], **check}))
        asking = ranker()
        asking.adapter = str(tmp_path)

        async def label_logprobs(ids, labels):
            return (ANSWERS[engine] if (ids, labels) == ([1, 2], [3, 4]) else [0.0] * len(labels)), 0

        asking.model.label_logprobs = label_logprobs
        return asking

    return make


@pytest.mark.parametrize(("engine", "sound"), [("adapted", True), ("base", False), ("other", True)])
def test_an_engine_that_answers_as_without_the_adapter_is_found_out(adapted, engine, sound):
    asking = adapted(engine)
    if sound:
        off = asyncio.run(asking.rank("q", passages(3))).counts["adapter_off"]
        assert off == pytest.approx(0.2 if engine == "other" else 0)
    else:
        with pytest.raises(BadInput, match="answers as demo without it"):
            asyncio.run(asking.rank("q", passages(3)))
        with pytest.raises(BadInput, match="answers as demo without it"):
            asyncio.run(asking.check_adapter())


def test_a_training_that_moved_less_than_bfloat16_rounds_is_no_fault(adapted, monkeypatch):
    monkeypatch.setitem(ANSWERS, "near", [-1.2, -2.0])
    monkeypatch.setitem(ANSWERS, "base", [-1.1, -2.0])
    with pytest.raises(BadInput, match="answers as demo without it"):
        asyncio.run(adapted("near", dtype="float32").check_adapter())
    assert asyncio.run(adapted("near", dtype="bfloat16").check_adapter()) == pytest.approx(0.2)


def test_the_check_is_counted_once_whoever_asks_first(adapted):
    asking = adapted("other")

    async def ask():
        assert await asking.check_adapter() == pytest.approx(0.2)
        return [await asking.rank("q", passages(3)) for _ in range(2)]

    first, second = asyncio.run(ask())
    assert first.counts["engines"] == 1 and first.counts["adapter_off"] == pytest.approx(0.2)
    assert "engines" not in second.counts


def test_a_cancelled_first_request_leaves_the_check_to_the_others(adapted):
    asking = adapted("other")
    answer, asked = asking.model.label_logprobs, []

    async def cancel_the_first():
        begun, go = asyncio.Event(), asyncio.Event()

        async def label_logprobs(ids, labels):
            asked.append(ids)
            begun.set()
            await go.wait()
            return await answer(ids, labels)

        asking.model.label_logprobs = label_logprobs
        first = asyncio.create_task(asking.rank("q", passages(3)))
        await begun.wait()
        second = asyncio.create_task(asking.rank("q", passages(3)))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go.set()
        return await second

    ranked = asyncio.run(cancel_the_first())
    assert ranked.counts["adapter_off"] == pytest.approx(0.2) and asked.count([1, 2]) == 1
