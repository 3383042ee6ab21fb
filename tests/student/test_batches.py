"""The rows of each step: the same for any number of workers, each once per pass, with batches of similar length."""

from collections import Counter
from itertools import chain

import pytest

from r2r.config import DistillSettings
from r2r.student.batches import shares, split, step_batches, steps_of


def settings(**given) -> DistillSettings:
    return DistillSettings(student="demo", **given)


def drawn(lengths, one, steps):
    return list(chain(*(batch.drawn for step in range(steps) for batch in step_batches(lengths, one, step))))


def test_a_step_is_the_same_for_two_workers_and_for_one_with_twice_the_accumulation():
    lengths = [(number * 37) % 100 + 1 for number in range(50)]
    two, one = settings(workers=2, batches=6), settings(workers=1, batches=6)
    for step in range(20):
        assert step_batches(lengths, two, step) == step_batches(lengths, one, step)


def test_each_row_comes_once_per_pass_and_each_pass_has_its_own_order():
    lengths = [1] * 48
    examples = drawn(lengths, settings(workers=2, batch=2), 36)
    assert Counter(row for row, _ in examples) == dict.fromkeys(range(48), 3)
    assert len({seed for _, seed in examples}) == len(examples)
    passes = [[row for row, seed in examples if seed // 48 == number] for number in range(3)]
    assert passes[0] != passes[1] != passes[2]
    assert drawn(lengths, settings(workers=2, batch=2), 36) == examples
    assert drawn(lengths, settings(workers=2, batch=2, seed=1), 36) != examples


def padding(lengths, batches):
    longest = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    return 1 - sum(lengths[row] for batch in batches for row in batch) / longest


def test_little_is_padding():
    lengths = [(number * 7919) % 1000 + 100 for number in range(2000)]
    one = settings(workers=2, batch=8)
    batches = [[row for row, _ in batch.drawn] for step in range(100) for batch in step_batches(lengths, one, step)]
    blind = [list(range(start, start + 8)) for start in range(0, 1600, 8)]
    assert padding(lengths, batches) < 0.03 < 0.3 < padding(lengths, blind)
    # Sorted, so that workers that wait for each other have batches of similar length.
    for step in range(100):
        longest = [max(lengths[row] for row, _ in batch.drawn) for batch in step_batches(lengths, one, step)]
        assert longest == sorted(longest, reverse=True)


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_few_rows_are_enough(rows):
    examples = drawn([5] * rows, settings(workers=2, batch=4), 7)
    assert len(examples) == 56 and {row for row, _ in examples} == set(range(rows))


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
def test_any_number_of_workers_shares_a_step(world):
    batches = step_batches([1] * 40, settings(workers=4, batches=4, batch=1), 0)
    every = [shares(batches, rank, world) for rank in range(world)]
    assert len({len(work) for work in every}) == 1
    counted = [batch.number for work in every for batch, counts in work if counts]
    assert sorted(counted) == [0, 1, 2, 3]


def test_held_out_queries_are_whole_and_of_a_share():
    queries = [f"query {number // 2}" for number in range(200)]
    learn, held = split(queries, settings(held_out=0.1))
    assert sorted(learn + held) == list(range(200)) and len(held) == 20
    assert not {queries[row] for row in learn} & {queries[row] for row in held}
    assert split(queries, settings(held_out=0.1)) == (learn, held)
    assert split(queries, settings(held_out=0.1, seed=1)) != (learn, held)


def test_at_least_one_query_is_held_out_and_at_least_one_learned_from():
    assert split(["a", "b", "c"], settings(held_out=0))[1] == []
    assert len(split(["a", "b", "c"], settings(held_out=0.01))[1]) == 1
    assert len(split(["a", "b", "c"], settings(held_out=0.99))[0]) == 1
    assert split(["a", "a"], settings(held_out=0.5)) == ([0, 1], [])
    assert len(split([str(number) for number in range(10_000)], settings(held_out=0.5))[1]) == 500


def test_epochs_are_counted_in_whole_steps():
    four = settings(batch=2, batches=2)
    assert [steps_of(epochs, 10, four) for epochs in (0.01, 0.4, 1, 2, 2.5)] == [1, 1, 3, 5, 7]
