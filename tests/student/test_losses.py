"""The losses against their formulas in float64, and against those of another library on the same scores."""

import math
from types import SimpleNamespace

import pytest
import torch

from r2r import config
from r2r.config import DistillSettings
from r2r.student import losses
from r2r.student.losses import LOSSES, Outputs, count_ordered

SCORES = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.5, 0.0]], dtype=torch.float32)
RANKS = torch.tensor([[1, 2, 0], [0, 1, -1]])
NOTHING = torch.zeros(1, 1, 1)


def pairwise(scores, ranks, ordered=None):
    """The loss of scores; over the examples given, unless the count of a whole step is given."""
    ordered = ordered or count_ordered(ranks).clamp(min=1)
    return losses.pairwise(Outputs(scores, ranks, NOTHING, NOTHING, tau=1.0, ordered=ordered, replies=1))


def listwise(scores, ranks, tau=1.0, ordered=None):
    ordered = ordered or count_ordered(ranks).clamp(min=1)
    return losses.listwise(Outputs(scores, ranks, NOTHING, NOTHING, tau=tau, ordered=ordered, replies=1))


def of_order(loss):
    """Return a loss as a function of scores and ranks, like `pairwise`."""

    def call(scores, ranks, ordered=None):
        ordered = ordered or count_ordered(ranks).clamp(min=1)
        return loss(Outputs(scores, ranks, NOTHING, NOTHING, tau=1.0, ordered=ordered, replies=1))

    return call


margin, lambdarank = of_order(losses.margin), of_order(losses.lambdarank)


def generation(logits, targets, replies=None):
    replies = replies or (targets != -100).sum().clamp(min=1)
    return losses.generation(Outputs(NOTHING, NOTHING, logits, targets, tau=1.0, ordered=1, replies=replies))


OF_ORDERS = pytest.mark.parametrize(
    "loss", [pairwise, lambda *given: listwise(*given[:2], 1.0, *given[2:]), margin, lambdarank]
)


def test_each_loss_has_a_weight_of_its_name():
    given = {"pairwise": 1, "listwise": 2, "generation": 3, "margin": 4, "lambdarank": 5}
    settings = DistillSettings(student="demo", **given)
    assert {loss.name: weight for loss, weight in losses.used(settings).items()} == given
    assert tuple(loss.name for loss in LOSSES) == config.LOSSES == tuple(given)


def test_the_papers_losses_are_always_calculated_and_others_with_a_weight():
    settings = DistillSettings(student="demo", pairwise=0, lambdarank=0.5)
    weights = {loss.name: weight for loss, weight in losses.used(settings).items()}
    assert weights == {"pairwise": 0, "listwise": 0.4, "generation": 0.2, "lambdarank": 0.5}
    DistillSettings(student="demo", pairwise=0, listwise=0, generation=0, margin=1)
    with pytest.raises(ValueError, match="margin, lambdarank: all are 0"):
        DistillSettings(student="demo", pairwise=0, listwise=0, generation=0)


def pairwise_by_hand(scores, ranks, weight=lambda i, j: 1 / (i + j)):
    examples = []
    for row, order in zip(scores.double().tolist(), ranks.tolist(), strict=True):
        total = weights = 0.0
        for i in range(len(row)):
            for j in range(len(row)):
                if 0 <= order[i] < order[j]:
                    total += weight(order[i] + 1, order[j] + 1) * math.log1p(math.exp(row[j] - row[i]))
                    weights += weight(order[i] + 1, order[j] + 1)
        if weights:
            examples.append(total / weights)
    return sum(examples) / len(examples)


def listwise_by_hand(scores, ranks, tau):
    examples = []
    for row, order in zip(scores.double().tolist(), ranks.tolist(), strict=True):
        present = [place for place in range(len(row)) if order[place] >= 0]
        p = [math.exp(-order[place] / tau) for place in present]
        q = [math.exp(row[place]) for place in present]
        p, q = [one / sum(p) for one in p], [one / sum(q) for one in q]
        examples.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return sum(examples) / len(examples)


def margin_by_hand(scores, ranks):
    examples = []
    for row, order in zip(scores.double().tolist(), ranks.tolist(), strict=True):
        pairs = [(i, j) for i in range(len(row)) for j in range(len(row)) if 0 <= order[i] < order[j]]
        if pairs:
            examples.append(sum(max(0.0, 1 - (row[i] - row[j])) for i, j in pairs) / len(pairs))
    return sum(examples) / len(examples)


def windows(examples: int, most: int, seed: int = 0):
    """Return random scores and ranks of windows of 2 to `most` passages, padded to `most`."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(examples, most, generator=draw)
    ranks = torch.full((examples, most), -1)
    for row in ranks:
        size = int(torch.randint(2, most + 1, (1,), generator=draw))
        places = torch.randperm(most, generator=draw)[:size]
        row[places] = torch.randperm(size, generator=draw)
    return scores, ranks


@pytest.mark.parametrize("most", range(2, 21))
def test_windows_of_every_size_are_the_formulas(most):
    scores, ranks = windows(6, most)
    assert pairwise(scores, ranks).item() == pytest.approx(pairwise_by_hand(scores, ranks), rel=1e-5)
    assert listwise(scores, ranks, 1.0).item() == pytest.approx(listwise_by_hand(scores, ranks, 1.0), rel=1e-5)
    assert margin(scores, ranks).item() == pytest.approx(margin_by_hand(scores, ranks), rel=1e-5)
    precise = scores.double()
    assert pairwise(precise, ranks).item() == pytest.approx(pairwise_by_hand(scores, ranks), rel=1e-12)
    assert listwise(precise, ranks, 1.0).item() == pytest.approx(listwise_by_hand(scores, ranks, 1.0), rel=1e-12)


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0, 3.0, 100.0])
def test_the_teachers_distribution_is_a_softmax_of_its_order(tau):
    assert listwise(SCORES, RANKS, tau).item() == pytest.approx(listwise_by_hand(SCORES, RANKS, tau), rel=1e-5)


def stub(scores):
    """Return a stand-in for a sentence-transformers CrossEncoder that gives these scores."""

    class Known(torch.nn.Module):
        num_labels, device = 1, torch.device("cpu")
        flat = iter(scores)

        def preprocess(self, pairs, **more):
            return {"pairs": torch.tensor([next(self.flat) for _ in pairs])}

        def forward(self, tokens):
            return {"scores": tokens["pairs"]}

    return Known()


def as_their_input(scores, ranks, relevance):
    """Return the flat scores, queries with documents, and labels, all without padding."""
    here = ranks >= 0
    documents = [["text"] * int(row.sum()) for row in here]
    labels = [relevance(row[which]) for row, which in zip(ranks.double(), here, strict=True)]
    flat = scores[here].tolist()
    return flat, (["query"] * len(ranks), documents), labels


def test_the_values_are_those_of_sentence_transformers():
    from sentence_transformers.cross_encoder.losses import ListNetLoss, RankNetLoss

    for seed in range(5):
        scores, ranks = windows(4, 20, seed)
        # Theirs is an unweighted mean over the pairs of all queries, so all windows get the same size.
        alike = torch.stack([torch.randperm(7, generator=torch.Generator().manual_seed(seed + at)) for at in range(4)])
        flat, inputs, labels = as_their_input(scores[:, :7], alike, lambda rank: -rank)
        theirs = RankNetLoss(stub(flat), reduction_log="natural")(inputs, labels)
        mine = pairwise_by_hand(scores[:, :7], alike, weight=lambda i, j: 1)
        assert theirs.item() == pytest.approx(mine, rel=1e-5)
        # With two passages there is one pair, and weights make no difference.
        flat, inputs, labels = as_their_input(scores[:, :2], alike[:, :2].argsort(-1), lambda rank: -rank)
        theirs = RankNetLoss(stub(flat), reduction_log="natural")(inputs, labels)
        assert pairwise(scores[:, :2], alike[:, :2].argsort(-1)).item() == pytest.approx(theirs.item(), rel=1e-5)

        # Theirs is the cross-entropy: our divergence plus the entropy of the teacher's distribution.
        flat, inputs, labels = as_their_input(scores, ranks, lambda rank: -rank / 2.0)
        entropy = [(-(p := row.softmax(-1)) * p.log()).sum().item() for row in labels]
        theirs = ListNetLoss(stub(flat))(inputs, labels)
        assert listwise(scores, ranks, 2.0).item() + sum(entropy) / 4 == pytest.approx(theirs.item(), rel=1e-5)


def test_pairwise_is_theirs_with_weights():
    from sentence_transformers.cross_encoder.losses import LambdaLoss

    scores, ranks = windows(1, 12, 3)
    flat, inputs, labels = as_their_input(scores, ranks, lambda rank: -rank)
    size = len(flat)
    pairs = size * (size - 1) / 2

    def weigh(gain, discount, relevance):
        # Their pairs are sorted by score; our weight depends on the ranks of a pair, from 1.
        rank = 1 - relevance_by_score
        return 1 / (rank[:, :, None] + rank[:, None, :])

    here = ranks[0] >= 0
    by_score = scores[0][here].argsort(descending=True)
    relevance_by_score = torch.full((1, size), 0.0)
    relevance_by_score[0] = labels[0][by_score].float()
    theirs = LambdaLoss(stub(flat), weighting_scheme=weigh, reduction_log="natural")(inputs, labels)
    total = sum(1 / (i + j) for i in range(1, size + 1) for j in range(i + 1, size + 1))
    assert pairwise(scores, ranks).item() == pytest.approx(theirs.item() * pairs / total, rel=1e-5)


def test_lambdarank_is_theirs():
    from sentence_transformers.cross_encoder.losses import LambdaLoss
    from sentence_transformers.cross_encoder.losses.lambda_loss import LambdaRankScheme

    for seed in range(5):
        scores, ranks = windows(1, 12, seed)
        # Their gains are 2^label - 1: those of these labels are ours, n - rank.
        flat, inputs, labels = as_their_input(scores, ranks, lambda rank: torch.log2(1 + len(rank) - rank))
        scheme = LambdaLoss(stub(flat), weighting_scheme=LambdaRankScheme(), reduction_log="natural")
        pairs = len(flat) * (len(flat) - 1) / 2
        # Theirs is a mean over the pairs, ours their sum.
        assert lambdarank(scores, ranks).item() == pytest.approx(scheme(inputs, labels).item() * pairs, rel=1e-4)


def test_lambdarank_weighs_a_mistake_at_the_top_more():
    ranks = torch.arange(6)[None]
    right = -ranks.double()
    top, bottom = right.clone(), right.clone()
    top[0, :2], bottom[0, -2:] = right[0, :2].flip(0), right[0, -2:].flip(0)
    assert lambdarank(top, ranks) > lambdarank(bottom, ranks) > lambdarank(right, ranks)


def test_margin_is_zero_where_all_pairs_are_far_enough_apart():
    scores = (-1.5 * RANKS.double()).requires_grad_()
    loss = margin(scores, RANKS)
    loss.backward()
    assert loss.item() == 0 and scores.grad.abs().max() == 0


def test_listwise_is_zero_where_the_student_agrees():
    scores = (-RANKS.double() / 2).requires_grad_()
    loss = listwise(scores, RANKS, 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert scores.grad.abs().max() < 1e-12


def test_pairwise_has_no_gradient_left_where_the_order_is_certain():
    scores = torch.tensor([[0.0, -800.0, 800.0]], dtype=torch.float64, requires_grad=True)
    loss = pairwise(scores, RANKS[:1])
    loss.backward()
    assert loss.item() == 0 and scores.grad.abs().max() == 0


def test_generation_has_no_gradient_left_where_the_reply_is_certain():
    targets = torch.tensor([[-100, 1, 4]])
    logits = torch.nn.functional.one_hot(targets.clamp(min=0), 5).double().mul(800).requires_grad_()
    loss = generation(logits, targets)
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


def test_the_right_order_costs_less_than_the_wrong_one():
    ranks = torch.tensor([[0, 1, 2]])
    right, wrong = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    assert pairwise(right, ranks) < pairwise(wrong, ranks)
    assert listwise(right, ranks, 1.0) < listwise(wrong, ranks, 1.0)


@OF_ORDERS
def test_padding_relabelling_and_the_order_of_a_batch_change_nothing(loss):
    for seed in range(5):
        scores, ranks = windows(6, 12, seed)
        value = pytest.approx(loss(scores, ranks).item(), rel=1e-5)
        padded, more = torch.cat([scores, torch.full((6, 2), 7.0)], 1), torch.cat([ranks, torch.full((6, 2), -1)], 1)
        assert loss(padded, more).item() == value
        draw = torch.Generator().manual_seed(seed)
        labels, examples = torch.randperm(12, generator=draw), torch.randperm(6, generator=draw)
        assert loss(scores[:, labels], ranks[:, labels]).item() == value
        assert loss(scores[examples], ranks[examples]).item() == value


@OF_ORDERS
def test_parts_of_a_step_add_up(loss):
    scores, ranks = windows(7, 6)
    ranks[3] = torch.tensor([0, -1, -1, -1, -1, -1])
    over = int(count_ordered(ranks))
    assert over == 6
    parts = [loss(scores[part], ranks[part], over).item() for part in (slice(0, 2), slice(2, 4), slice(4, 7))]
    assert sum(parts) == pytest.approx(loss(scores, ranks).item(), rel=1e-5)


@OF_ORDERS
def test_one_passage_has_no_order_and_no_gradient(loss):
    scores = torch.tensor([[0.7, 5.0]], requires_grad=True)
    ranks = torch.tensor([[0, -1]])
    value = loss(scores, ranks)
    value.backward()
    assert value.item() == 0 and scores.grad.abs().sum() == 0 and count_ordered(ranks) == 0
    # Nor does it change the mean of the others.
    assert loss(torch.cat([SCORES[:, :2], scores.detach()]), torch.tensor([[0, 1], [1, 0], [0, -1]])).item() == (
        pytest.approx(loss(SCORES[:, :2], torch.tensor([[0, 1], [1, 0]])).item())
    )


@OF_ORDERS
@pytest.mark.parametrize("size", [1.0, 1e2, 3e4, 1e37])
def test_extreme_scores_in_bfloat16_stay_finite(loss, size):
    scores = torch.tensor([[size, -size, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    value = loss(scores, torch.tensor([[2, 0, -1]]))
    value.backward()
    assert value.isfinite() and scores.grad.isfinite().all()


def test_extreme_logits_in_bfloat16_stay_finite():
    logits = torch.tensor([[[1e37, -1e37, 0.0], [0.0, 1e37, 1e37]]], dtype=torch.bfloat16, requires_grad=True)
    value = generation(logits, torch.tensor([[1, -100]]))
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()


def test_generation_counts_the_targets_only():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.tensor([[-100, 1, 4], [-100, -100, 0]])
    chosen = [logits[0, 1].log_softmax(-1)[1], logits[0, 2].log_softmax(-1)[4], logits[1, 2].log_softmax(-1)[0]]
    assert generation(logits, targets).item() == pytest.approx(-sum(chosen).item() / 3, rel=1e-12)
    parts = [generation(logits[at : at + 1], targets[at : at + 1], 3).item() for at in (0, 1)]
    assert sum(parts) == pytest.approx(-sum(chosen).item() / 3, rel=1e-12)


def test_gradients_are_those_of_finite_differences_through_a_model():
    """All losses, as training calculates them from one forward pass of a whole language model."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from r2r.student.examples import Example, collate
    from r2r.student.train import forward

    torch.manual_seed(0)
    # GPT-2 calculates everything in float64; newer models have parts in float32.
    config = GPT2Config(vocab_size=40, n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3)
    model = GPT2LMHeadModel(config).double().eval()
    examples = [
        Example([5, 6, 7, 8], [2, 30, 1, 9], [1, 0, 2], [0, 1, 2], 0),
        Example([9, 8], [31, 32, 3, 1], [2, 3, 1, 0], [0, 1, 2, 3], 2),
        Example([9, 8, 7], [1, 9], [0], [0], 0),
    ]
    batch, labels = collate(examples, 0), torch.arange(1, 21)
    parameters = [model.transformer.h[0].attn.c_attn.weight, model.transformer.h[1].mlp.c_proj.weight]
    for loss in range(len(LOSSES)):
        gradients = torch.autograd.grad(forward(model, batch, labels, 1.0)[loss], parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            for place in gradient.abs().flatten().topk(3).indices.tolist():
                flat, values = parameter.data.view(-1), []
                for change in (1e-5, -2e-5):
                    flat[place] += change
                    values.append(forward(model, batch, labels, 1.0)[loss].item())
                flat[place] += 1e-5
                assert (values[0] - values[1]) / 2e-5 == pytest.approx(gradient.view(-1)[place].item(), rel=1e-6)


def test_one_forward_pass_gives_all_losses():
    from r2r.student.train import forward

    calls = []

    def model(**given):
        calls.append(given)
        return SimpleNamespace(logits=torch.zeros(1, 2, 30))

    batch = {
        **{name: torch.zeros(1, 4, dtype=torch.long) for name in ("input_ids", "attention_mask", "position_ids")},
        **{"targets": torch.tensor([[1, 2]]), "first": torch.tensor([0]), "ranks": torch.tensor([[0, 1]])},
        "labels": torch.tensor([[0, 1]]),
    }
    values = dict(zip([loss.name for loss in LOSSES], forward(model, batch, torch.arange(20), 1.0), strict=True))
    assert len(calls) == 1 and calls[0]["logits_to_keep"] == 2
    teacher = torch.tensor([0.0, -1.0]).softmax(-1)
    divergence = (teacher * (teacher.log() - math.log(0.5))).sum().item()
    found = [values[name].item() for name in ("pairwise", "listwise", "generation")]
    assert found == pytest.approx([math.log(2), divergence, math.log(30)], rel=1e-5)
