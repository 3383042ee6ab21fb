"""Annotations as training examples: shuffling, the rank of each label, and batches padded on the left."""

import json
from pathlib import Path

import pytest
import torch

from r2r.config import DistillSettings
from r2r.llm.prompt import load_tokenizer
from r2r.student.distill import within_student
from r2r.student.examples import collate, example, fits, length, until_order
from r2r.student.model import label_scores
from r2r.student.prompt import LABELS, label_ids
from tests.tiny import tiny_model

SETTINGS = DistillSettings(student="demo", max_length=1024)
ROW = {
    "qid": "1",
    "query": "how long do fleas live",
    "docids": ["d1", "d2", "d3", "d4"],
    "texts": ["Cats purr.", "A flea lives 100 days.", "Dogs bark.", "A flea may live a year."],
    "ranking": [2, 4, 1, 3],
    "direct": ["no", "yes", "no", "nearly"],
    "evidence": ["", "A flea lives 100 days.", "", "A flea may live a year."],
    "comparison": ["Below [2].", "Above [4].", "Last, below passages 1 and 2.", "Below [2]."],
}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(tiny_model())


@pytest.mark.parametrize(("reads", "most"), [(512, 512), (2048, 1024), (None, 1024)])
def test_no_example_is_longer_than_what_the_student_reads(tmp_path, capsys, reads, most):
    config = json.loads(Path(tiny_model(), "config.json").read_text()) | {"max_position_embeddings": reads}
    # Whose configuration names no length.
    config = config if reads else {"model_type": "bloom"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert within_student(SETTINGS.model_copy(update={"student": str(tmp_path)})).max_length == most
    said = "distill: max_length 512: the student reads no more (1,024 was set)\n"
    assert capsys.readouterr().out == (said if most == 512 else "")


@pytest.mark.parametrize("seed", range(5))
def test_labels_ranks_and_reply_agree_under_any_shuffle(tokenizer, seed):
    one = example(tokenizer, ROW, SETTINGS, seed)
    shown = tokenizer.decode(one.prompt)
    reply = tokenizer.decode(one.reply)
    label_of = {text: shown[shown.index(text) + len(text) + 2] for text in ROW["texts"]}
    order = [label_of[ROW["texts"][position - 1]] for position in ROW["ranking"]]
    assert reply.startswith(" > ".join(order) + "\n")
    assert [LABELS[one.labels[one.ranks.index(rank)]] for rank in range(4)] == order
    assert f'"comparison":"Last, below passages [{label_of["Cats purr."]}] and [{order[0]}]."' in reply
    assert one.reply[0] == label_ids(tokenizer, "demo")[LABELS.index(order[0])]
    assert one.reply[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("reasoning", ["none", "direct", "comparison", "both"])
def test_the_order_may_come_last(tokenizer, reasoning):
    last = SETTINGS.model_copy(update={"order_position": "last", "reasoning": reasoning})
    first = example(tokenizer, ROW, last.model_copy(update={"order_position": "first"}), 3)
    one = example(tokenizer, ROW, last, 3)
    labels = label_ids(tokenizer, "demo")
    reasons, _, order = tokenizer.decode(one.reply[:-1]).rpartition("\n")
    assert order == tokenizer.decode(first.reply[:-1]).partition("\n")[0]
    # The label of the best is a single token there, too.
    assert one.reply[one.place] == labels[one.labels[one.ranks.index(0)]] and first.place == 0
    assert one.reply[one.place :] == [*tokenizer.encode(order, add_special_tokens=False), tokenizer.eos_token_id]
    if reasoning != "none":
        # Listed best first, they would give the order away.
        assert [each["passage"] for each in json.loads(reasons)] == [LABELS[label] for label in one.labels]
    assert one.ranks == first.ranks and one.prompt == first.prompt


@pytest.mark.parametrize("order", ["first", "last"])
def test_the_labels_of_qwen_are_tokens_of_their_own_in_each_place(tokenizer, data, order):
    from transformers import PreTrainedTokenizerFast

    file = str(data / "tokenizers/qwen2.5/tokenizer.json")
    qwen = PreTrainedTokenizerFast(tokenizer_file=file, eos_token="<|im_end|>", chat_template=tokenizer.chat_template)
    for seed in range(5):
        one = example(qwen, ROW, SETTINGS.model_copy(update={"order_position": order}), seed)
        assert one.reply[one.place] == label_ids(qwen, "qwen")[one.labels[one.ranks.index(0)]]
        assert qwen.decode(one.reply[one.place :]).startswith(f"{LABELS[one.labels[one.ranks.index(0)]]} > ")


def test_ranking_reads_as_far_as_the_first_label(tokenizer):
    for order in ("first", "last"):
        one = example(tokenizer, ROW, SETTINGS.model_copy(update={"order_position": order}), 3)
        short = until_order(one)
        assert short.reply == one.reply[: one.place + 1] and short.prompt == one.prompt
        batch, whole = collate([short], 0), collate([one], 0)
        seen = int(batch["attention_mask"].sum())
        assert seen == len(one.prompt) + one.place
        assert batch["first"].tolist() == [one.place] == whole["first"].tolist()


def test_more_passages_than_labels_do_not_fit(tokenizer):
    many = {"docids": ["d"] * 21, "texts": ["x"] * 21, "ranking": list(range(1, 22))}
    many |= {name: ["x"] * 21 for name in ("direct", "evidence", "comparison")}
    assert not fits(tokenizer, ROW | many, SETTINGS) and length(tokenizer, ROW | many, SETTINGS) == 0
    assert length(tokenizer, ROW, SETTINGS) > length(tokenizer, ROW | {"texts": ["x"] * 4}, SETTINGS) > 0


def test_shuffles_differ_by_seed_and_not_by_chance(tokenizer):
    ranks = [tuple(example(tokenizer, ROW, SETTINGS, seed).ranks) for seed in range(20)]
    assert len(set(ranks)) > 5
    assert ranks == [tuple(example(tokenizer, ROW, SETTINGS, seed).ranks) for seed in range(20)]


def test_labels_are_drawn_from_all_twenty_and_ascend(tokenizer):
    drawn = [example(tokenizer, ROW, SETTINGS, seed) for seed in range(60)]
    assert {label for one in drawn for label in one.labels} == set(range(20))
    assert all(one.labels == sorted(set(one.labels)) for one in drawn)
    first = [example(tokenizer, ROW, SETTINGS.model_copy(update={"labels": "first"}), seed) for seed in range(60)]
    assert all(one.labels == [0, 1, 2, 3] for one in first)
    # The labels do not decide the shuffle.
    assert [one.ranks for one in drawn] == [one.ranks for one in first]


def test_scores_are_those_of_each_examples_own_labels(tokenizer):
    alone = {name: value[:1] if isinstance(value, list) else value for name, value in ROW.items()} | {"ranking": [1]}
    examples = [example(tokenizer, row, SETTINGS, seed) for row, seed in ((ROW, 0), (ROW, 1), (alone, 2))]
    assert examples[0].labels != examples[1].labels
    batch, labels = collate(examples, 0), torch.tensor(label_ids(tokenizer, "demo"))
    # Each logit says where it stands.
    places, width = batch["targets"].shape[1], len(tokenizer)
    logits = torch.arange(3 * places * width, dtype=torch.float64).view(3, places, width)
    scores = label_scores(logits, batch, labels)
    assert scores.shape == batch["ranks"].shape == (3, 4)
    for row, one in enumerate(examples):
        for place, rank in enumerate(one.ranks):
            token = labels[one.labels[place]]
            assert scores[row, place] == logits[row, batch["first"][row], token]
            # The reply begins with the label of the best.
            assert (rank == 0) == (token == batch["targets"][row, batch["first"][row]])


def test_a_long_passage_is_cut_and_keeps_its_label(tokenizer):
    long = ROW | {"texts": ["river " * 3000, *ROW["texts"][1:]]}
    one = example(tokenizer, long, SETTINGS, 0)
    assert len(one.prompt) + len(one.reply) <= SETTINGS.max_length
    assert all(f"[{label}]" in tokenizer.decode(one.prompt) for label in map(LABELS.__getitem__, one.labels))


def test_a_reply_that_leaves_no_room_does_not_fit(tokenizer):
    assert fits(tokenizer, ROW, SETTINGS)
    assert not fits(tokenizer, ROW | {"direct": ["why " * 500] * 4}, SETTINGS)


def test_a_batch_ends_together_and_predicts_the_replies(tokenizer):
    short = DistillSettings(student="demo", reasoning="none")
    examples = [example(tokenizer, ROW, SETTINGS, 0), example(tokenizer, ROW, short, 1)]
    batch = collate(examples, tokenizer.pad_token_id)
    length, longest = batch["input_ids"].shape[1], batch["targets"].shape[1]
    for place, one in enumerate(examples):
        ids = batch["input_ids"][place]
        assert batch["targets"][place][longest - len(one.reply) :].tolist() == one.reply
        assert (batch["targets"][place][: longest - len(one.reply)] == -100).all()
        # Position t of the last `longest` positions predicts target t, so it holds the token before it.
        predicts = length - longest + int(batch["first"][place])
        assert ids[predicts].item() == one.prompt[-1]
        assert ids[predicts + 1 :].tolist() == one.reply[:-1]
        assert batch["attention_mask"][place].sum() == len(one.prompt) + len(one.reply) - 1
        assert batch["position_ids"][place].max() == len(one.prompt) + len(one.reply) - 2
    assert batch["ranks"].shape == (2, 4)
