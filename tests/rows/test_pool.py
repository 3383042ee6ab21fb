"""Rows through workers without a model: which rows are asked and kept, and how rows that kill their engine end.

The actors are in this process, except those of the tests that name Ray. tests/integration/test_annotate.py does the
same with real engines and real kills.
"""

import asyncio
import hashlib
import os
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from r2r import tables
from r2r.config import ModelWorkers
from r2r.datasets.candidates import Candidates, Listed
from r2r.errors import BadInput
from r2r.llm import Died
from r2r.rows import pool
from r2r.rows.journal import Entry, Journal


def key(row):
    return hashlib.sha256(row["query"].encode()).hexdigest()


class Worker:
    """Answers with a ranking. Queries that begin otherwise: "poison" kills it, "reject" is rejected, "wrong" raises
    BadInput, "unasked" is left, "once" is rejected and then left, "together" waits for a second worker, "stubborn N" is
    rejected until N attempts were made before. Logs each row and the rows in flight."""

    def __init__(self, log: Path):
        self.log, self.dead, self.in_flight, self.patience = log, False, 0, 600
        (log.parent / f"process-{os.getpid()}").touch()

    def in_writing(self):
        return 0

    def close(self):
        self._note("closed")

    async def __call__(self, row):
        import asyncio

        self.in_flight += 1
        self._note(f"{row['qid']} {self.in_flight}")
        await asyncio.sleep(0.05)
        while row["query"].startswith("together") and self.patience > 0:
            if len(list(self.log.parent.glob("process-*"))) > 1:
                break
            self.patience -= 1
            await asyncio.sleep(0.1)
        self.dead = self.dead or row["query"].startswith("poison")
        await asyncio.sleep(0.05)
        self.in_flight -= 1
        if self.dead:
            raise Died("dead")
        if row["query"].startswith("wrong"):
            raise BadInput("wrong: is wrong; do it right")
        if row["query"].startswith("unasked") or (row["query"].startswith("once") and "attempts" in row):
            return None
        stubborn = row["query"].startswith("stubborn") and row.get("attempts", 0) < int(row["query"].split()[1])
        if row["query"].startswith(("reject", "once")) or stubborn:
            reject = {"qid": row["qid"], "key": key(row), "reason": "no", "reply": "", "attempts": 1}
            return "rejects", reject, {"completion_tokens": 1}
        ranking = {"qid": row["qid"], "query": row["query"], "docids": row["docids"], "scores": [1.0], "attempts": 1}
        return "rankings", ranking, {"completion_tokens": 2}

    def _note(self, line):
        with self.log.open("a") as log:
            log.write(line + "\n")


def job_of(tmp_path, queries, version="v1", go_on=lambda counts: True, retry_rejects=False, **settings):
    rows = [{"qid": f"q{at}", "query": query, "docids": ["d"], "texts": ["t"]} for at, query in enumerate(queries)]
    candidates = Candidates(
        [row["qid"] for row in rows],
        lambda size: [Listed(tuple(rows[at : at + size])) for at in range(0, len(rows), size)],
    )
    job = pool.Job("rank", Worker, (tmp_path / "log",), key, version, ("rankings", "rejects"))
    workers = ModelWorkers(**{"in_flight": 4, **settings})
    return pool.run_rows(candidates, job, workers, tmp_path, go_on, retry_rejects)


@pytest.fixture
def run(actors_here, tmp_path):
    return partial(job_of, tmp_path)


@pytest.fixture
def run_on_ray(ray_local, tmp_path):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return partial(job_of, tmp_path)


def log(tmp_path):
    return (tmp_path / "log").read_text().splitlines()


def test_rows_are_answered_once_and_come_out_in_order(run, tmp_path, capsys):
    queries = [f"query {at}" for at in range(30)] + ["reject"]
    done = run(queries)
    assert done.counts == {"rankings": 30, "rejects": 1, "completion_tokens": 61} and done.unasked == 0
    assert done.speed > 0
    ranked = tables.read(tmp_path, "rankings").to_pylist()
    assert [row["qid"] for row in ranked] == [f"q{at}" for at in range(30)]
    assert [row["qid"] for row in tables.read(tmp_path, "rejects").to_pylist()] == ["q30"]
    asked = log(tmp_path)
    assert sorted(line.split()[0] for line in asked) == sorted(f"q{at}" for at in range(31))
    # All slots are used, and no more.
    assert max(int(line.split()[1]) for line in asked) == 4

    # Only new rows are asked; a query that comes twice is asked once.
    more = run(["new", *queries, "query 3"])
    assert more.counts["rankings"] == 32 and log(tmp_path)[len(asked) :] == ["q0 1"]
    assert [row["qid"] for row in tables.read(tmp_path, "rankings").to_pylist()][-2:] == ["q30", "q32"]

    # With other settings all are asked again, and the old answers stay.
    capsys.readouterr()
    run(queries, version="v2")
    said = capsys.readouterr().out
    assert "all rows are asked anew" in said and str(tmp_path / "rows" / "v1") in said
    assert len(log(tmp_path)) == len(asked) + 1 + len(queries)
    # Finished rows of the first settings are not asked again.
    assert run(queries, version="v1")[:2] == (done.counts, 0)
    assert len(log(tmp_path)) == len(asked) + 1 + len(queries)


@pytest.mark.parametrize("actors", [1, 3, 64, 256])
@pytest.mark.parametrize("rows", [1, 43, 5000, 500_000])
@pytest.mark.parametrize("in_flight", [1, 64, 256])
def test_rows_are_shared_out_once_and_early_actors_leave_the_others_their_share(rows, actors, in_flight):
    size = pool.part_size(rows, actors, in_flight)
    parts = -(-rows // size)
    blocks = pool.shares(parts, actors, size)
    assert [number for block in blocks for number in block] == list(range(parts))
    sizes = [len(block) for block in blocks]
    assert sizes == sorted(sizes, reverse=True)
    held = sum(sizes[: pool.ahead(len(blocks), actors)]) * size
    share = rows / actors
    # What an actor holds at first: no more than its share, enough for its engine, and all that is left comes in parts.
    assert held <= max(share, 1) + size
    assert held >= min(share, 2 * in_flight)
    assert sizes[-1] == 1 or len(blocks) == 1


def test_rejected_rows_are_asked_again_and_no_others(run, tmp_path):
    first = run(["query 0", "stubborn 1", "stubborn 2", "query 1"])
    assert first.counts == {"rankings": 2, "rejects": 2, "completion_tokens": 2 * 2 + 2 * 1}

    def rejects():
        return [(row["qid"], row["attempts"]) for row in tables.read(tmp_path, "rejects").to_pylist()]

    assert rejects() == [("q1", 1), ("q2", 1)]

    def asked(*arguments, **options):
        before = len(log(tmp_path))
        done = run(*arguments, **options)
        return sorted(line.split()[0] for line in log(tmp_path)[before:]), done

    # In another order, with a new row, on other workers: the rejects and the new row are asked.
    again = ["query 1", "stubborn 2", "new", "stubborn 1", "query 0"]
    rows, done = asked(again, retry_rejects=True, actors=2, in_flight=1)
    assert rows == ["q1", "q2", "q3"]
    # "stubborn 1" has cost 1 + 2 tokens, "stubborn 2" 1 + 1.
    assert done.counts == {"rankings": 4, "rejects": 1, "completion_tokens": 3 * 2 + 3 + 2} and done.unasked == 0
    assert [row["qid"] for row in tables.read(tmp_path, "rankings").to_pylist()] == ["q0", "q2", "q3", "q4"]
    assert rejects() == [("q1", 2)]
    journal = Journal(tmp_path / "rows" / "v1")
    assert journal.get(key({"query": "stubborn 1"}))["row"]["attempts"] == 2

    # Without the flag, nothing is asked; with it, only what is still rejected.
    assert asked(again)[0] == []
    rows, done = asked(again, retry_rejects=True)
    assert rows == ["q1"] and rejects() == []
    assert done.counts == {"rankings": 5, "completion_tokens": 3 * 2 + 3 + (1 + 1 + 2)}
    assert asked(again, retry_rejects=True)[0] == []


def test_rejects_that_are_not_asked_again_as_they_should_are_counted(run, tmp_path):
    assert run(["query", "once"]).unasked == 0
    done = run(["query", "once"], retry_rejects=True)
    assert done.unasked == 1 and done.counts["rejects"] == 1
    assert run(["query", "once"]).unasked == 0


def test_a_retry_gives_a_row_three_more_engines_and_new_rows_no_more_than_three(run, tmp_path):
    run(["poison"])
    assert log(tmp_path).count("closed") == 3
    run(["poison", "query"], retry_rejects=True)
    assert log(tmp_path).count("closed") == 6
    (reject,) = tables.read(tmp_path, "rejects").to_pylist()
    assert reject["attempts"] == 6
    run(["poison new", "query"], retry_rejects=True)
    assert log(tmp_path).count("closed") == 9


def test_rows_of_an_earlier_release_are_told(tmp_path):
    pool.refuse_old_answers(tmp_path)
    (tmp_path / "rows" / "v2-0123456789abcdef").mkdir(parents=True)
    pool.refuse_old_answers(tmp_path)
    (tmp_path / "rows" / "0123456789abcdef").mkdir()
    with pytest.raises(BadInput, match=r"/rows/0123456789abcdef: answers of a release before 0\.2, .*move the folder"):
        pool.refuse_old_answers(tmp_path)


def test_a_row_that_kills_three_engines_is_rejected_and_no_other_row_is(run, tmp_path):
    done = run([*(f"query {at}" for at in range(6)), "poison", *(f"query {at}" for at in range(6, 12))])
    assert done.counts["rankings"] == 12 and done.counts["rejects"] == 1
    (reject,) = tables.read(tmp_path, "rejects").to_pylist()
    assert (reject["qid"], reject["reason"], reject["attempts"]) == ("q6", "ended its engine 3 times", 3)
    lines = log(tmp_path)
    assert lines.count("closed") == 3
    assert len([line for line in lines if line.startswith("q6 ")]) == 3
    # The row is alone with the last engine that it kills. The others in flight are asked once more after a death.
    assert [line for line in lines if line.startswith("q6 ")][-1] == "q6 1"
    again = Counter(line.split()[0] for line in lines if line != "closed")
    others = [count - 1 for qid, count in again.items() if qid != "q6"]
    assert max(others) <= 2 and sum(others) <= 3 + 2
    # The deaths are kept: another run does not try the row again.
    journal = Journal(tmp_path / "rows" / "v1")
    assert journal.deaths(key({"query": "poison"})) == 3


def test_rows_that_may_have_killed_an_engine_are_asked_in_groups_and_then_alone(run, tmp_path):
    assert [pool.slots_of(deaths, 256) for deaths in (0, 1, 2, 5)] == [1, 16, 256, 256]
    assert [pool.slots_of(1, in_flight) for in_flight in (1, 2, 3, 4, 64, 200)] == [1, 2, 3, 2, 8, 15]
    done = run([*(f"query {at}" for at in range(15)), "poison"], in_flight=16, actors=1)
    assert done.counts["rankings"] == 15 and done.counts["rejects"] == 1
    lines = log(tmp_path)
    first, second, _ = (at for at, line in enumerate(lines) if line == "closed")
    # Of 16 suspects 4 are in flight at once; at the second death, at most 3 of the other 15.
    assert max(int(line.split()[1]) for line in lines[:first]) == 16
    assert max(int(line.split()[1]) for line in lines[first + 1 : second]) == 4
    assert len(lines) - 3 - 2 * 16 <= 1 + 3


def test_engines_that_answer_nothing_end_the_job(run, tmp_path):
    queries = [f"poison {at}" for at in range(40)]
    with pytest.raises(BadInput, match=r"^rank: 3 engines died one after another, .* \(dead\); .*worker-\*-\d+\.err"):
        run(queries, in_flight=16, actors=1)
    assert log(tmp_path).count("closed") == 3
    # What has answered a row is no bad engine: the rows are bad.
    assert run(["query", *queries[:4]], "v2", in_flight=1, actors=1).counts == {
        **{"rankings": 1, "rejects": 4, "completion_tokens": 2}
    }


def test_every_actor_of_ray_that_fits_has_work(run_on_ray, tmp_path):
    # The Ray of the tests has two CPUs.
    queries = ["reject", *(f"together {at}" for at in range(100))]
    assert run_on_ray(queries, actors=3).counts == {"rankings": 100, "rejects": 1, "completion_tokens": 201}
    assert len(list(tmp_path.glob("process-*"))) == 2
    asked = log(tmp_path)
    assert max(int(line.split()[1]) for line in asked) == 4
    assert sorted(line.split()[0] for line in asked) == sorted(f"q{at}" for at in range(101))


def test_a_job_that_stops_on_ray_keeps_its_rows(run_on_ray, tmp_path):
    queries = [f"reject {at}" for at in range(400)]
    done = run_on_ray(queries, go_on=lambda counts: counts["rejects"] <= 4)
    assert 4 < done.counts["rejects"] < 400
    assert done.unasked == 400 - done.counts["rejects"]
    assert len(log(tmp_path)) == done.counts["rejects"]
    assert tables.read(tmp_path, "rejects").num_rows == done.counts["rejects"]
    assert tables.read(tmp_path, "rankings").num_rows == 0
    # Earlier rejects count again, and are not asked again.
    again = run_on_ray(queries, go_on=lambda counts: counts["rejects"] <= 4)
    assert done.counts["rejects"] <= again.counts["rejects"] < 400
    assert len(log(tmp_path)) == again.counts["rejects"]


def test_rows_that_a_worker_leaves_are_unasked(run, tmp_path):
    done = run(["query", "unasked 1", "unasked 2"])
    assert done.counts["rankings"] == 1 and done.unasked == 2
    assert run(["query", "x1", "x2"]).unasked == 0


def test_bad_input_ends_the_job(run):
    with pytest.raises(BadInput, match=r"^wrong: is wrong; do it right$"):
        run(["query", "wrong"])


def test_more_than_a_file_of_rows(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_ROWS_PER_FILE", 5)
    run([f"query {at}" for at in range(12)])
    assert [file.name for file in tables.files(tmp_path, "rankings")] == [f"part-{at:05}.parquet" for at in range(3)]
    assert [row["qid"] for row in tables.read(tmp_path, "rankings").to_pylist()] == [f"q{at}" for at in range(12)]


def test_an_actor_tells_how_far_its_rows_are_before_the_first_is_done(tmp_path, monkeypatch):
    import asyncio

    monkeypatch.setattr(pool, "_BEAT", 0.01)
    told, begun = [], asyncio.Event()

    class Slow:
        def __init__(self):
            self.so_far = Counter(begun=4)

        async def __call__(self, row):
            self.so_far["steps"] += 1
            # The row is not answered before the driver has heard of its step.
            await begun.wait()
            ranking = {"qid": row["qid"], "query": row["query"], "docids": row["docids"], "scores": [1.0]}
            return "rankings", ranking, {"completion_tokens": 2}

        def in_writing(self):
            return 0

        def close(self):
            pass

    class Tell:
        @staticmethod
        async def remote(name, counts):
            told.append(counts)
            if counts.get("steps"):
                begun.set()
            return True

    parts = [Listed(({"qid": "q0", "query": "query", "docids": ["d"], "texts": ["t"]},))]
    job = pool.Job("rank", Slow, (), key, "v1", ("rankings", "rejects"), "windows")

    async def work():
        actor = pool._RowActor(parts, job, tmp_path / "rows", 4, 0, Tell)
        return await asyncio.wait_for(actor(pa.table({"part": [0]})), 60)

    assert asyncio.run(work())["counts"] == {"rankings": 1, "done": 1, "asked": 1, "completion_tokens": 2}
    assert any(one.get("begun") == 4 and one.get("steps") == 1 and "done" not in one for one in told)
    last = {"begun": 4, "steps": 1, "rankings": 1, "done": 1, "asked": 1, "completion_tokens": 2}
    assert told[-1] == last | {"in flight": 0, "in writing": 0, "starting": 0}


class Told:
    """Stands for the driver's board: keeps what an actor tells it."""

    def __init__(self):
        self.told, self.remote = [], self.tell

    async def tell(self, name, counts):
        self.told.append(counts)
        return True


class Writing:
    """Has written 40 tokens of each reply until the board was told of all three, and 100 at the end."""

    def __init__(self, board):
        self.board, self.asked = board, 0

    def in_writing(self):
        return 40 * self.asked

    async def __call__(self, row):
        self.asked += 1
        while not any(counts["in flight"] == 3 for counts in self.board.told):
            await asyncio.sleep(0.001)
        self.asked -= 1
        return "rankings", {"qid": row["qid"]}, {"completion_tokens": 100}


def test_what_is_waited_for_is_told_until_tokens_are_written(tmp_path, monkeypatch):
    rows = tuple({"qid": f"q{at}", "query": f"query {at}", "docids": ["d"], "texts": ["t"]} for at in range(3))
    board = Told()
    job = pool.Job("rank", Writing, (board,), key, "v1", ("rankings", "rejects"))
    monkeypatch.setattr(pool, "_BEAT", 0.001)
    actor = pool._RowActor([Listed(rows)], job, tmp_path, 4, 0, board)
    asyncio.run(actor(pa.table({"part": [0]})))
    said = [pool._state(Counter(counts), 10) for counts in board.told]
    assert "waiting for an engine to start" in said and pool._state(Counter(), 0) == "waiting for a worker of Ray"
    assert "12 tokens/s, 3 rows in flight" in said and said[-1] == "30 tokens/s, 0 rows in flight"
    assert pool._state(Counter({"in flight": 4}), 10) == "4 rows in flight, waiting for the first reply"
    waiting = Counter({"in flight": 4, "steps": 3, "begun": 9})
    said = "3/9 requests of batches, 4 rows in flight, waiting for the first reply"
    assert pool._state(waiting, 10, "requests of batches") == said


def test_answers_that_arrive_together_wait_for_the_disk_once(tmp_path, monkeypatch):
    job = pool.Job("rank", Worker, (), key, "v1", ("rankings", "rejects"))
    waits, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (waits.append(file), fsync(file)))
    entries = [Entry(key({"query": str(at)}), "rankings", {"qid": str(at)}, {}) for at in range(40)]

    async def keep(entries):
        actor = pool._RowActor([], job, tmp_path / "rows", 64, 0, None)
        await asyncio.gather(*map(actor._keep, entries[:30]))
        await asyncio.gather(*map(actor._keep, entries[30:]))
        return [actor.journal.get(entry.key) for entry in entries]

    found = asyncio.run(keep(entries))
    assert len(waits) == 2 and [entry["row"]["qid"] for entry in found] == [str(at) for at in range(40)]
    again = Journal(tmp_path / "rows")
    assert [again.get(entry.key) for entry in entries] == found

    def full(file):
        raise OSError(28, "No space left on device")

    async def fail():
        actor = pool._RowActor([], job, tmp_path / "rows", 64, 0, None)
        return await asyncio.gather(*map(actor._keep, entries), return_exceptions=True)

    # None of them is taken for kept.
    monkeypatch.setattr(os, "fsync", full)
    assert {type(one) for one in asyncio.run(fail())} == {BadInput}
