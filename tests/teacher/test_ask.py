"""How one row is asked, with a model whose replies are written down here."""

import asyncio
import json
import re
from functools import partial

import pytest

from r2r.config import AnnotateSettings
from r2r.llm import Refused, Reply
from r2r.llm.prompt import chat_ids, load_tokenizer
from r2r.stage import identify
from r2r.teacher import ask, calls, parse
from r2r.teacher import prompt as asking
from r2r.teacher.annotate import stage
from tests.test_stage import changed
from tests.tiny import tiny_model

ROW = {
    "qid": "q1",
    "query": "how long do fleas live",
    "docids": ["a", "b", "c"],
    "texts": ["A flea lives 100 days.", "Dogs bark.", "Cats purr."],
}


def written(order, evidence=None, comparison="Better than [1]."):
    """A reply that orders passages by their numbers as shown."""
    passages = [
        {
            "identifier": number,
            "direct_answer_sentence": (evidence or {}).get(number, ""),
            "direct_reason": f"reason {number}",
            "listwise_reason": comparison,
        }
        for number in order
    ]
    return json.dumps({"ranked_passages": passages})


class Model:
    """Answers with one written reply after the other; the last one stays. A reply may be a function of the prompt."""

    max_length = 4096

    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []
        self.tokenizer = load_tokenizer(tiny_model())

    async def complete(self, message, *, max_tokens, schema, temperature, seed):
        self.asked.append({"message": message, "temperature": temperature, "seed": seed})
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        reply = reply(message) if callable(reply) else reply
        if isinstance(reply, Exception):
            raise reply
        return Reply(reply, True, 100, 20)


def settings(**more):
    return AnnotateSettings(**{"teacher": "demo", "passages": 3, **more})


def annotate(monkeypatch, model, budget=None, row=ROW, **more):
    monkeypatch.setattr(ask.calls, "open_model", lambda *arguments: model)
    chosen = settings(**more)
    annotator = ask.Annotator(chosen, partial(ask.key, version="v", passages=chosen.passages), budget)
    return asyncio.run(annotator(row))


def test_a_sound_reply_becomes_an_annotation(monkeypatch):
    model = Model(written([2, 3, 1], {1: "A flea lives\n100 days.", 2: "N/A"}))
    table, row, counts = annotate(monkeypatch, model)
    assert table == "annotations"
    assert row == {
        **{"qid": "q1", "query": ROW["query"], "docids": ["a", "b", "c"], "texts": ROW["texts"]},
        **{"ranking": [2, 3, 1], "direct": ["reason 1", "reason 2", "reason 3"]},
        **{"evidence": ["A flea lives\n100 days.", "", ""], "comparison": ["Better than [1]."] * 3},
        **{"teacher": "demo", "key": ask.key(ROW, "v", 3), "attempts": 1, "agreement": None},
        **{"prompt_tokens": 100, "completion_tokens": 20},
    }
    assert counts["evidence"] == counts["verbatim"] == counts["replies"] == counts["attempts_1"] == 1
    assert counts.get("same_as_shown", 0) == 0 and counts["tau"] == pytest.approx(-1 / 3)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (written([1, 1, 2]), "identifiers are no permutation of 1 to 3"),
        (written([1, 2, 3], {2: "A flea lives 100 days."}), "evidence is not in its passage"),
        (written([1, 2, 3], comparison="Better than [4]."), "a comparison names a passage that is not shown"),
        (written([1, 2, 3], comparison=" "), "listwise_reason is empty"),
        ("<think>what", "its thinking never ends"),
    ],
)
def test_a_reply_that_fails_is_asked_again_hotter_and_with_another_seed(monkeypatch, wrong, reason):
    model = Model(wrong, wrong, written([1, 2, 3]))
    table, row, counts = annotate(monkeypatch, model, temperature=0.2, seed=5)
    assert (table, row["attempts"], row["completion_tokens"]) == ("annotations", 3, 60)
    assert [one["temperature"] for one in model.asked] == pytest.approx([0.2, 0.5, 0.8])
    assert len({one["seed"] for one in model.asked}) == 3
    assert counts["attempts_3"] == 1

    table, row, counts = annotate(monkeypatch, Model(wrong))
    assert table == "rejects" and row["reason"].startswith(reason)
    assert (row["attempts"], row["reply"], counts["completion_tokens"]) == (3, wrong, 60)


def test_false_evidence_may_be_left_out_alone(monkeypatch):
    model = Model(written([1, 2, 3], {1: "A flea lives 100 days.", 2: "A flea lives 100 days."}))
    table, row, counts = annotate(monkeypatch, model, false_evidence="drop")
    assert (table, row["attempts"], row["evidence"]) == ("annotations", 1, ["A flea lives 100 days.", "", ""])
    assert (counts["evidence"], counts["verbatim"]) == (2, 1)


def test_what_a_server_refuses_is_not_asked_again(monkeypatch):
    table, row, _ = annotate(monkeypatch, Model(Refused("400: too long")))
    assert (table, row["reason"], row["attempts"], row["reply"]) == ("rejects", "refused: 400: too long", 1, "")


def shown(message):
    """The passages in the order in which a prompt shows them."""
    return sorted(ROW["texts"], key=message.index)


def by_name(*names):
    """A reply that orders passages by their text, wherever they are shown."""

    def reply(message):
        places = [shown(message).index(text) + 1 for name in names for text in ROW["texts"] if text.startswith(name)]
        return written(places)

    return reply


def test_samples_are_shown_in_other_orders_and_merged(monkeypatch):
    model = Model(
        by_name("Dogs", "A flea", "Cats"), by_name("Dogs", "Cats", "A flea"), by_name("Dogs", "A flea", "Cats")
    )
    _, row, counts = annotate(monkeypatch, model, samples=3)
    orders = [shown(one["message"]) for one in model.asked]
    assert orders[0] == ROW["texts"] and len({tuple(order) for order in orders}) > 1
    # The reasons are those of a reply whose order is the merged one, in the order in which it saw the passages.
    assert [row["texts"][position - 1] for position in row["ranking"]] == [
        "Dogs bark.",
        "A flea lives 100 days.",
        "Cats purr.",
    ]
    assert row["texts"] == orders[0] and row["docids"] == ["a", "b", "c"]
    assert row["agreement"] == pytest.approx((1 / 3 + 1 / 3 + 1) / 3)
    assert (row["attempts"], row["completion_tokens"], counts["replies"]) == (3, 60, 3)
    assert len({one["seed"] for one in model.asked}) == 3


def test_a_sample_that_fails_rejects_the_row(monkeypatch):
    model = Model(written([1, 2, 3]), "no", written([1, 2, 3]))
    table, row, _ = annotate(monkeypatch, model, samples=3, attempts=1)
    assert table == "rejects" and row["reply"] == "no" and row["attempts"] == 3


def test_passages_are_shuffled_by_the_seed(monkeypatch):
    orders = []
    for seed in [*range(8), 0]:
        model = Model(by_name("Dogs", "A flea", "Cats"))
        _, row, _ = annotate(monkeypatch, model, passage_order="shuffled", seed=seed)
        orders.append(tuple(row["docids"]))
        assert shown(model.asked[0]["message"]) == row["texts"]
        assert [row["docids"][position - 1] for position in row["ranking"]] == ["b", "a", "c"]
    assert len(set(orders)) > 2 and orders[-1] == orders[0]


LONG = {
    **{"qid": "q1", "query": "which number is small", "docids": [f"d{at}" for at in range(9)]},
    # The best are at the bottom.
    "texts": [f"Number {at}." for at in (5, 9, 4, 8, 7, 2, 6, 3, 1)],
}


def by_number(message):
    """A reply that puts small numbers first, with reasons that name all passages of the call."""
    numbers = [int(number) for number in re.findall(r"Number ([0-9])\.", message)]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    passages = [
        {
            "identifier": place + 1,
            "direct_answer_sentence": f"Number {numbers[place]}.",
            "direct_reason": f"It is {numbers[place]}, of {sorted(numbers)}.",
            "listwise_reason": " ".join(f"{numbers[other]} is [{other + 1}]." for other in range(len(numbers))),
        }
        for place in order
    ]
    return json.dumps({"ranked_passages": passages})


def test_a_long_list_is_ranked_in_windows_from_the_bottom_up(monkeypatch):
    model = Model(by_number)
    table, row, counts = annotate(monkeypatch, model, row=LONG, passages=9, window=4, stride=2)
    seen = [[int(one) for one in re.findall(r"Number ([0-9])\.", asked["message"])] for asked in model.asked]
    assert seen == [[2, 6, 3, 1], [8, 7, 1, 2], [9, 4, 1, 2], [5, 1, 2]]
    assert table == "annotations" and (row["docids"], row["texts"]) == (LONG["docids"], LONG["texts"])
    numbers = [int(text[7]) for text in row["texts"]]
    ranked = [numbers[position - 1] for position in row["ranking"]]
    assert ranked == [1, 2, 5, 4, 9, 7, 8, 3, 6]
    # Each passage has the reasons of the last window that it was in. Comparisons name the passages of the row.
    windows = {1: [1, 2, 5], 2: [1, 2, 5], 5: [1, 2, 5], 4: [1, 2, 4, 9], 9: [1, 2, 4, 9]}
    windows |= {7: [1, 2, 7, 8], 8: [1, 2, 7, 8], 3: [1, 2, 3, 6], 6: [1, 2, 3, 6]}
    for number, evidence, direct, comparison in zip(
        numbers, row["evidence"], row["direct"], row["comparison"], strict=True
    ):
        assert evidence == f"Number {number}." and direct == f"It is {number}, of {windows[number]}."
        named = {int(one): numbers[int(place) - 1] for one, place in re.findall(r"([0-9]) is \[([0-9])\]", comparison)}
        assert named == {one: one for one in windows[number]}
        # What a window said about two passages holds in the merged order.
        above = {one for one in windows[number] if ranked.index(one) < ranked.index(number)}
        assert above == {one for one in windows[number] if one < number}
    assert (row["attempts"], row["prompt_tokens"], row["completion_tokens"]) == (4, 400, 80)
    assert (counts["replies"], counts["attempts_1"], counts["evidence"]) == (4, 4, 15)


def test_a_list_that_fits_a_call_is_one_call_whose_words_stay(monkeypatch):
    model = Model(written([2, 3, 1], comparison="As passages 1 and 2."))
    _, row, _ = annotate(monkeypatch, model, window=3)
    assert len(model.asked) == 1 and row["comparison"] == ["As passages 1 and 2."] * 3


def test_a_window_that_fails_ends_its_row(monkeypatch):
    model = Model(by_number, "no", "no")
    table, row, counts = annotate(monkeypatch, model, row=LONG, passages=9, window=4, attempts=2)
    assert (table, row["reply"], row["attempts"]) == ("rejects", "no", 3) and len(model.asked) == 3
    assert counts["completion_tokens"] == 60


def test_samples_of_long_lists_are_merged(monkeypatch):
    model = Model(by_number)
    _, row, counts = annotate(monkeypatch, model, row=LONG, passages=9, window=4, samples=3)
    numbers = [int(text[7]) for text in row["texts"]]
    assert [numbers[position - 1] for position in row["ranking"]][:2] == [1, 2]
    assert sorted(row["docids"]) == LONG["docids"] and counts["replies"] == row["attempts"] == 12
    for comparison in row["comparison"]:
        assert all(
            numbers[int(place) - 1] == int(one) for one, place in re.findall(r"([0-9]) is \[([0-9])\]", comparison)
        )


class Remote:
    """A budget whose methods are called as those of a Ray actor are."""

    def __init__(self, left):
        self.budget = calls.Budget(left)
        self.reserve, self.give_back = Method(self.reserved), Method(self.budget.give_back)

    async def reserved(self, *arguments):
        return self.budget.reserve(*arguments)


class Method:
    def __init__(self, remote):
        self.remote = remote


def test_a_budget_that_is_told_twice_counts_once():
    budget = calls.Budget(1.0)
    assert budget.reserve("a", 0.75) and budget.reserve("a", 0.75) and not budget.reserve("b", 0.5)
    budget.give_back("a", 0.25)
    budget.give_back("a", 0.25)
    budget.give_back("b", 0.25)
    assert budget.left == 0.75 and budget.reserve("b", 0.75) and not budget.reserve("c", 0.25)


def test_nothing_is_asked_that_might_cost_more_than_is_left(monkeypatch):
    prices = {"price_in": 1.0, "price_out": 1000.0, "max_tokens": 50, "max_cost": 1.0}
    model = Model("no", written([1, 2, 3]))
    # A call may cost a little more than 0.05; the two calls came to a little more than 0.02 each.
    budget = Remote(0.12)
    table, row, _ = annotate(monkeypatch, model, budget, **prices)
    assert table == "annotations" and row["attempts"] == 2
    assert budget.budget.left == pytest.approx(0.12 - 2 * calls.cost(100, 20, settings(**prices)))
    assert annotate(monkeypatch, Model("no"), Remote(0.04), **prices) is None
    # Each window is a call: of three, two fit.
    model, budget = Model(by_number), Remote(0.09)
    assert annotate(monkeypatch, model, budget, row=LONG, passages=9, window=5, stride=2, **prices) is None
    assert len(model.asked) == 2


FIELDS = AnnotateSettings.model_fields


def version(chosen: AnnotateSettings) -> str:
    return ask.version(identify(stage(None, "out", chosen)))


@pytest.mark.parametrize("name", [name for name in FIELDS if AnnotateSettings.kind(name) == "what"])
def test_each_setting_that_changes_answers_changes_the_key(name):
    usual, chosen = changed("index", "shards").annotate, changed("annotate", name).annotate
    assert ask.key(ROW, version(chosen), 3) != ask.key(ROW, version(usual), 3)


@pytest.mark.parametrize("name", [name for name in FIELDS if AnnotateSettings.kind(name) == "how"])
def test_no_other_setting_changes_the_key(name):
    usual, chosen = changed("index", "shards").annotate, changed("annotate", name).annotate
    assert version(chosen) == version(usual)


def test_the_key_knows_the_row_the_prompt_and_the_teachers_content(monkeypatch, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "weights.safetensors").write_text("weights")
    chosen = settings(teacher=str(tmp_path / "one"))
    usual = ask.key(ROW, version(chosen), 3)
    found = {
        ask.key(ROW | {"query": "x"}, version(chosen), 3),
        ask.key(ROW | {"docids": ["a", "b", "x"]}, version(chosen), 3),
        ask.key(ROW | {"texts": ["x", "y", "z"]}, version(chosen), 3),
    }
    with monkeypatch.context() as patched:
        patched.setattr(asking, "VERSION", "another")
        found.add(ask.key(ROW, version(chosen), 3))
    # Passages that are not shown change nothing.
    more = {"docids": [*ROW["docids"], "d"], "texts": [*ROW["texts"], "more"]}
    assert ask.key(ROW | more, version(chosen), 3) == usual
    # A teacher is known by its files, not by where they are.
    (tmp_path / "one").rename(tmp_path / "two")
    moved = settings(teacher=str(tmp_path / "two"))
    assert ask.key(ROW, version(moved), 3) == usual
    (tmp_path / "two" / "weights.safetensors").write_text("others")
    found.add(ask.key(ROW, version(moved), 3))
    assert len({usual, *found}) == 6


@pytest.mark.parametrize("query", ["how long", "river " * 5000])
@pytest.mark.parametrize("text", ["mountain " * 3000, "<|im_end|>[/INST]</s> 7" * 900])
def test_no_query_and_no_passage_makes_a_call_too_long(monkeypatch, query, text):
    model = Model(written([1, 2, 3]))
    _, _, counts = annotate(
        monkeypatch, model, row=ROW | {"query": query, "texts": [text, "short", text]}, max_tokens=500
    )
    assert len(chat_ids(model.tokenizer, model.asked[0]["message"])) + 500 <= model.max_length
    assert counts["cut_texts"] == 2 + (query != "how long") and "short" in model.asked[0]["message"]


def test_a_servers_prompts_hold_no_control_tokens_and_are_cut_by_bytes(monkeypatch):
    model = Model(written([1, 2, 3]))
    row = ROW | {"texts": ["flea <|im_end|> lives </s>", "ünï " * 3000, "[INST] <s> a<b [x] <|eot_id|>"]}
    _, annotation, counts = annotate(monkeypatch, model, row=row, teacher="http://127.0.0.1:1/v1", max_tokens=500)
    message = model.asked[0]["message"]
    for mark in ("<|im_end|>", "</s>", "[INST]", "<s>", "<|eot_id|>"):
        assert mark not in message
    assert "a<b [x]" in message and "< |im_end|>" in message
    assert len(message.encode()) <= model.max_length - 500 and counts["cut_texts"] == 1
    assert annotation["texts"] == row["texts"]

    model.max_length = None
    annotate(monkeypatch, model, row=row, teacher="http://127.0.0.1:1/v1")
    assert "ünï " * 2999 in model.asked[-1]["message"]


def test_a_reply_that_is_repaired_is_counted(monkeypatch):
    reply = f"```json\n{written([2, 1, 3])}\n```"
    assert parse.parse_reply(reply, 3, "both").status == "repaired"
    assert annotate(monkeypatch, Model(reply))[2]["repaired"] == 1
