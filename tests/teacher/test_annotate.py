"""The stage with recorded annotations and replies, with a stubbed teacher that is asked again, and its plan."""

import json
from functools import partial

import pyarrow as pa
import pytest

from r2r import builtin, cli, places, tables
from r2r.config import AnnotateSettings, Dialect
from r2r.errors import BadInput, Stopped
from r2r.llm.probe import Probed
from r2r.places import place
from r2r.rows import journal as journals
from r2r.teacher import ask, calls
from r2r.teacher.annotate import annotate as run_stage
from tests.llm.dummy import DummyModel

PASSAGES = ["A flea lives 100 days.", "Dogs bark.", "Cats purr."]


def recorded(qid, order=(2, 1, 3), evidence=("", "", ""), comparison="Better than [1]."):
    """A line of a recorded annotation; `evidence` is aligned with the passages as shown."""
    ranked = [
        {
            "identifier": number,
            "direct_reason": f"reason {number}",
            "listwise_reason": comparison,
            "direct_answer_sentence": evidence[number - 1],
        }
        for number in order
    ]
    return {
        **{"qid": qid, "query": f"query {qid}", "unsorted_docs": PASSAGES, "re_rank_id": list(order)},
        **{"sorted_docids": [f"d{number}" for number in order], "reason": {"ranked_passages": ranked}},
    }


@pytest.fixture
def annotate(tmp_path):
    """Run the command over recorded lines; return its exit status and its folder."""

    def run(*lines, flags=()):
        file, out = tmp_path / "recorded.jsonl", tmp_path / "out"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return cli.main(["annotate", "--teacher", f"teacher:{file}", "--out", str(out), *flags]), out

    return run


def test_recorded_annotations_pass_the_same_checks_and_get_the_same_statistics(annotate, capsys):
    status, out = annotate(
        recorded("q1", evidence=("A flea lives  100 days.", "N/A", "")),
        recorded("q2", (1, 2, 3), evidence=("A flea lives 100 days.", "Dogs howl.", "Not applicable")),
        recorded("q3", comparison="Better than [4]."),
        flags=["--max-reject-rate", "0.5"],
    )
    assert status == 0
    first, second = tables.read(out, "annotations").to_pylist()
    assert first["evidence"] == ["A flea lives  100 days.", "", ""]
    # It cannot be asked again: what is false is left out, and counted.
    assert second["evidence"] == ["A flea lives 100 days.", "", ""]
    (reject,) = tables.read(out, "rejects").to_pylist()
    assert reject["qid"] == "q3" and reject["reason"] == "a comparison names a passage that is not shown"
    assert "Better than [4]." in reject["reply"]
    stats = json.loads((out / "stats.json").read_text())
    assert stats["rows"] == {"annotations": 2, "rejects": 1}
    assert stats["evidence"] == {"given": 3, "verbatim": 2, "share": 0.6667}
    assert stats["rejects"] == {"a comparison names a passage that is not shown": 1}
    assert stats["order"] == {"tau_with_retrieved": pytest.approx((1 / 3 + 1) / 2, abs=1e-4), "same_as_shown": 0.5}
    assert stats["cost"] == {"spent": 0} and stats["agreement"] is None
    said = capsys.readouterr().out
    assert "66.7% of the evidence verbatim" in said and "WARNING" not in said


def test_a_teacher_that_leaves_the_order_as_it_is_is_told(annotate, capsys):
    annotate(*(recorded(f"q{at}", (1, 2, 3)) for at in range(3)), recorded("q9"))
    assert "WARNING: 75% of the orders are the order shown: this teacher may not be ranking" in capsys.readouterr().out


def test_too_many_rejects_end_with_status_3_and_keep_what_was_done(annotate, capsys):
    lines = [*(recorded(f"q{at}") for at in range(3)), recorded("q9", comparison="[7]")]
    status, out = annotate(*lines)
    assert status == 3
    said = capsys.readouterr().err
    assert "r2r: annotate: 1 rows rejected, more than max_reject_rate 0.02 allows: 1 a comparison names" in said
    assert tables.read(out, "annotations").num_rows == 3 and (out / "stats.json").exists()
    assert not (out / "manifest.json").exists()
    assert annotate(*lines, flags=["--max-reject-rate", "0.25"])[0] == 0
    assert (out / "manifest.json").exists()


def test_the_authors_annotations(data, tmp_path):
    file = data / "teacher-gpt4" / "msmarco_500.jsonl"
    assert cli.main(["annotate", "--teacher", f"teacher:{file}", "--out", str(tmp_path)]) == 0
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["rows"] == {"annotations": 500, "rejects": 0}
    # Of 2,500 answer sentences 9 are empty, 185 only say that there is none, and 195 stand in no passage as they are.
    assert stats["evidence"] == {"given": 2306, "verbatim": 2111, "share": 0.9154}
    kept = [piece for row in tables.read(tmp_path, "annotations").to_pylist() for piece in row["evidence"]]
    assert (len(kept), sum(map(bool, kept))) == (2500, 2111)


@pytest.fixture
def candidates(tmp_path):
    row = {"query": "how long do fleas live", "docids": ["a", "b"], "texts": PASSAGES[:2], "scores": [2.0, 1.0]}
    tables.write([row | {"qid": f"q{at}"} for at in range(3)], tmp_path / "candidates", "candidates")
    return str(tmp_path / "candidates")


def test_the_prompt_is_shown_as_the_model_sees_it(candidates, tmp_path, capsys):
    assert cli.main(["annotate", "--candidates", candidates, "--teacher", "demo", "--show-prompt"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("<|im_start|>user\n") and said.rstrip().endswith("<|im_start|>assistant")
    assert "Passage [2]: Dogs bark." in said and said.count("how long do fleas live") == 2


def test_a_dry_run_counts_what_would_be_asked(ray_local, candidates, tmp_path, capsys):
    from r2r.llm.prompt import chat_ids, load_tokenizer
    from r2r.teacher.prompt import prompt

    flags = ["--candidates", candidates, "--teacher", "demo", "--out", str(tmp_path / "out"), "--max-tokens", "100"]
    prices = ["--price-in", "1000", "--price-out", "10000", "--tokens-per-second", "36", "--gpus", "2"]
    assert cli.main(["annotate", *flags, *prices, "--dry-run"]) == 0
    said = capsys.readouterr().out
    tokenizer = load_tokenizer(builtin.model("demo", "teacher"))
    tokens = 3 * len(chat_ids(tokenizer, prompt("how long do fleas live", PASSAGES[:2], "both")))
    assert f"would ask 3 rows in 3 calls of {tokens:,} prompt tokens" in said
    # 2 passages with 3 texts of 30 tokens each, and 6 around them, would be more than a reply may have.
    assert "replies: estimated 300 tokens (at 30 for each text), at most 300" in said
    assert f"cost: estimated {tokens / 1000 + 3:,.2f}, at most {tokens / 1000 + 3:,.2f}" in said
    assert "GPU hours" in said and "nothing was asked" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--teacher", "demo", "--dry-run"], "candidates: missing"),
        (["--teacher", "demo", "--show-prompt"], "candidates: missing"),
        (["--teacher", "demo", "--max-cost", "5", "--out", "OUT"], "max_cost: needs prices"),
        (["--teacher", "demo", "--candidates", "x"], "out: missing"),
        (["--teacher", "demo", "--passages", "1001"], "passages: '1001'"),
        (
            ["--teacher", "teacher:x", "--depth", "50", "--out", "OUT"],
            "depth: teacher:x was recorded without this setting",
        ),
        (["--teacher", "demo", "--samples", "0"], "samples: '0'"),
        (["--teacher", "demo", "--max-reject-rate", "2"], "max_reject_rate: '2'"),
    ],
)
def test_mistakes(tmp_path, capsys, flags, said):
    assert cli.main(["annotate", *(str(tmp_path / "out") if flag == "OUT" else flag for flag in flags)]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture
def reranked(tmp_path):
    """Run the command over recorded replies about three candidates rows; return its exit status and its folder."""

    def run(*replies, flags=()):
        rows = [
            {"qid": f"q{at}", "query": f"query {at}", "docids": ["a", "b", "c"], "texts": PASSAGES, "scores": [3, 2, 1]}
            for at in range(3)
        ]
        tables.write(rows, tmp_path / "candidates", "candidates")
        file, out = tmp_path / "replies.jsonl", tmp_path / "out"
        file.write_text("".join(json.dumps({"qid": qid, "reply": reply}) + "\n" for qid, reply in replies))
        given = ["--candidates", str(tmp_path / "candidates"), "--teacher", f"replies:{file}", "--out", str(out)]
        return cli.main(["annotate", *given, *flags]), out

    return run


def test_recorded_replies_are_a_teacher(reranked, capsys):
    given = [("q0", "[2] > [1] > [3]"), ("q1", "I cannot rank these.")]
    status, out = reranked(*given, flags=["--max-reject-rate", "0.7"])
    assert status == 0
    (row,) = tables.read(out, "annotations").to_pylist()
    assert (row["qid"], row["ranking"], row["docids"], row["texts"]) == ("q0", [2, 1, 3], ["a", "b", "c"], PASSAGES)
    assert row["direct"] == row["evidence"] == row["comparison"] == ["", "", ""]
    rejects = tables.read(out, "rejects").to_pylist()
    assert [(one["qid"], one["reason"], one["reply"]) for one in rejects] == [
        ("q1", "holds no ranking", "I cannot rank these."),
        ("q2", "has no reply", ""),
    ]
    stats = json.loads((out / "stats.json").read_text())
    assert stats["rows"] == {"annotations": 1, "rejects": 2}
    assert stats["order"] == {"tau_with_retrieved": 0.3333, "same_as_shown": 0}
    # Done; with another reply in the file, it is done again.
    content = manifest(out)["content"]
    assert reranked(*given, flags=["--max-reject-rate", "0.7"])[0] == 0
    assert "annotate: done already" in capsys.readouterr().out
    assert reranked(*given, ("q2", "[3] > [2] > [1]"), flags=["--max-reject-rate", "0.7"])[0] == 0
    assert tables.read(out, "annotations").num_rows == 2 and manifest(out)["content"] != content


def test_too_many_recorded_replies_that_cannot_be_read(reranked, capsys):
    status, out = reranked(("q0", "[2] > [1] > [3]"), ("q1", "no"), ("q2", "[1] > [3] > [2]"))
    assert status == 3
    said = capsys.readouterr().err
    assert "1 rows rejected, more than max_reject_rate 0.02 allows: 1 holds no ranking" in said
    assert tables.read(out, "annotations").num_rows == 2 and not (out / "manifest.json").exists()


def test_recorded_replies_are_given_as_they_are(reranked, tmp_path, capsys):
    assert reranked(("q0", "[1] > [2] > [3]"), flags=["--retry-rejects"])[0] == 2
    assert "cannot be asked again; leave --retry-rejects out" in capsys.readouterr().err
    assert cli.main(["annotate", "--teacher", f"replies:{tmp_path}/replies.jsonl", "--out", str(tmp_path / "out")]) == 2
    assert "candidates: missing" in capsys.readouterr().err
    given = ["--candidates", str(tmp_path / "candidates"), "--teacher", f"replies:{tmp_path}/none.jsonl"]
    assert cli.main(["annotate", *given, "--out", str(tmp_path / "out")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def manifest(out):
    return json.loads((out / "manifest.json").read_text())


class Teacher(DummyModel):
    """Ranks passages as shown, but not about `silent` queries. Notes query, seed and temperature of each call."""

    def __init__(self):
        super().__init__(lambda prompt: "no" if self._query(prompt) in self.silent else self.reply, max_length=50_000)
        self.silent, self.asked, self.reply = set(), [], RANKED

    async def complete(self, prompt, *, seed, temperature, **options):
        self.asked.append((self._query(prompt), seed, round(temperature, 2)))
        return await super().complete(prompt, seed=seed, temperature=temperature, **options)

    def close(self):
        """It is asked by several runs."""

    @staticmethod
    def _query(prompt):
        return prompt.partition("Query: ")[2].partition("\n")[0]


TEXTS = {"direct_answer_sentence": "", "direct_reason": "It says so.", "listwise_reason": "Like no other."}
RANKED = json.dumps({"ranked_passages": [{"identifier": number} | TEXTS for number in (1, 2, 3)]})
# For two passages, without reasons.
BOTH = json.dumps({"ranked_passages": [{"identifier": 2}, {"identifier": 1}]})


@pytest.fixture
def asked(tmp_path, monkeypatch, rows_here):
    """The stage over three queries with a stubbed teacher, in this process. It returns the calls that a run makes."""

    teacher = Teacher()
    monkeypatch.setattr(ask.calls, "open_model", lambda *arguments: teacher)
    found = Probed(Dialect(response_format="none", seed=True), "400: no response_format", 3, 70, 20)
    monkeypatch.setattr(calls, "probe", lambda *arguments: found)
    rows = [
        {"qid": f"q{at}", "query": f"query {at}", "docids": ["a", "b", "c"], "texts": PASSAGES, "scores": [3, 2, 1]}
        for at in range(3)
    ]
    tables.write(rows, tmp_path / "candidates", "candidates")

    def run(silent=(), retry_rejects=False, reply=RANKED, out=tmp_path / "out", **settings):
        before, teacher.silent, teacher.reply = len(teacher.asked), set(silent), reply
        chosen = {"teacher": "http://127.0.0.1:1/v1#model", "temperature": 0.1, "max_reject_rate": 0.5, **settings}
        run_stage(str(tmp_path / "candidates"), out, AnnotateSettings(**chosen), retry_rejects)
        return teacher.asked[before:]

    return run


@pytest.mark.parametrize("attempts", [2, 5])
def test_rejected_rows_are_asked_again_although_the_stage_is_done(asked, tmp_path, attempts):
    out = tmp_path / "out"
    calls = asked({"query 1"}, attempts=attempts)
    assert sorted({query for query, *_ in calls}) == ["query 0", "query 1", "query 2"]
    tries = [call for call in calls if call[0] == "query 1"]
    content = manifest(out)["content"]
    assert asked({"query 1"}, attempts=attempts) == []

    # It fails again: asked otherwise than before, with other limits, and the annotations stay as they are.
    again = asked({"query 1"}, retry_rejects=True, attempts=attempts, max_tokens=2000, in_flight=1)
    tries += again
    assert len(again) == attempts and {query for query, *_ in again} == {"query 1"}
    assert [seed for _, seed, _ in tries] == list(range(1, 2 * attempts + 1))
    assert [heat for *_, heat in tries] == [round(min(1, 0.1 + 0.3 * at), 2) for at in range(2 * attempts)]
    (reject,) = tables.read(out, "rejects").to_pylist()
    assert reject["attempts"] == 2 * attempts
    assert manifest(out)["content"] == content

    # Now it is answered: one more attempt, and all tokens of the row are in the sums.
    tokens = manifest(out)["prompt_tokens"]
    assert asked(retry_rejects=True, attempts=attempts) == [("query 1", 2 * attempts + 1, 1.0)]
    assert tables.read(out, "rejects").num_rows == 0
    found = {row["qid"]: row["attempts"] for row in tables.read(out, "annotations").to_pylist()}
    assert found == {"q0": 1, "q1": 2 * attempts + 1, "q2": 1}
    assert manifest(out)["content"] != content and manifest(out)["rows"] == {"annotations": 3, "rejects": 0}
    # Each call about a row has the same prompt.
    assert manifest(out)["prompt_tokens"] == tokens * (2 * attempts + 3) // (2 * attempts + 2)

    content = manifest(out)["content"]
    assert asked(retry_rejects=True, attempts=attempts) == []
    assert manifest(out)["content"] == content


@pytest.mark.parametrize("late", [0, 60])
def test_a_job_in_a_store_that_ends_early_loses_nothing(asked, store, tmp_path, monkeypatch, late):
    asked({"query 1"}, attempts=1)
    out, put = place("s3://bucket/out"), places.put
    monkeypatch.setattr(journals, "_BETWEEN", 0.0)

    def ends(content, file):
        if "/rows/" in str(file) and store.keys("out/rows/"):
            raise BadInput("the end")
        put(content, file)

    monkeypatch.setattr(places, "put", ends)
    with pytest.raises(BadInput, match="the end"):
        asked({"query 1"}, out=out, attempts=1, in_flight=1)
    monkeypatch.setattr(places, "put", put)
    # One row was kept. It is asked again only if the store does not list it yet.
    store.faults.late = late
    assert len(asked({"query 1"}, out=out, attempts=1, in_flight=1)) == (3 if late else 2)
    for table in ("annotations", "rejects"):
        assert tables.read(out, table) == tables.read(tmp_path / "out", table)
    assert manifest(out)["content"] == manifest(tmp_path / "out")["content"]
    assert manifest(out)["prompt_tokens"] == manifest(tmp_path / "out")["prompt_tokens"]


def test_each_draw_is_asked_about_once_and_told(asked, tmp_path, capsys):
    out, qrels = tmp_path / "out", tmp_path / "qrels.txt"
    qrels.write_text("q0 0 c 1\nq1 0 lost 1\nq2 0 a 2\n")
    chosen = {"passages": 2, "depth": 3, "draws": 2, "positives": str(qrels), "distinct": True, "reasoning": "none"}
    assert sorted(query for query, *_ in asked(reply=BOTH, **chosen)) == sorted(f"query {at}" for at in (0, 1, 2) * 2)
    rows = tables.read(out, "annotations").to_pylist()
    assert [row["qid"] for row in rows] == ["q0", "q0", "q1", "q1", "q2", "q2"]
    assert len({row["key"] for row in rows}) == 6 and all(len(row["docids"]) == 2 for row in rows)
    # The first is from the top, the second from below, another one in each draw; or it is the positive.
    assert [sorted(row["docids"]) for row in rows[:2]] == [["a", "c"]] * 2
    assert {tuple(sorted(row["docids"])) for row in rows[2:4]} == {("a", "b"), ("a", "c")}
    stats = json.loads((out / "stats.json").read_text())
    positives = stats["passages"]["positives"]
    assert positives.pop("drawn") + positives.pop("put_in") == 4
    assert positives == {"from_corpus": 0, "left_out": 0, "without_text": ["q1 lost"]}
    assert stats["passages"]["near_duplicates"] == 0
    said = capsys.readouterr().out
    assert "annotate: 0 near-duplicates left out" in said
    assert "annotate: 1 positives are in neither candidates nor corpus (qid docid): q1 lost" in said
    assert asked(reply=BOTH, **chosen) == []
    qrels.write_text("q0 0 b 1\n")
    assert len(asked(reply=BOTH, **chosen)) > 0


def test_what_was_drawn_is_counted_once_if_a_row_is_asked_again(asked, tmp_path):
    chosen = {"distinct": True, "passages": 2, "reasoning": "none", "attempts": 1, "reply": BOTH}
    rows = [
        {"qid": "q0", "query": "query 0", "docids": list("abc"), "texts": ["Dogs.", "dogs", "Cats."], "scores": [1] * 3}
    ]
    tables.write(rows, tmp_path / "candidates", "candidates")
    asked({"query 0"}, max_reject_rate=1, **chosen)
    assert len(asked(retry_rejects=True, **chosen)) == 1
    (row,) = tables.read(tmp_path / "out", "annotations").to_pylist()
    assert row["docids"] == ["a", "c"] and row["attempts"] == 2
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["passages"] == {"near_duplicates": 1}


def test_at_the_defaults_stats_and_manifest_know_nothing_of_draws(asked, tmp_path):
    asked()
    assert "passages" not in json.loads((tmp_path / "out" / "stats.json").read_text())
    what, inputs = manifest(tmp_path / "out")["what"], manifest(tmp_path / "out")["inputs"]
    assert not {"depth", "draws", "distinct", "positives", "window", "stride"} & what.keys()
    assert inputs.keys() == {"teacher", "candidates"}


def test_a_plan_counts_windows_and_says_which_are_guessed(asked, tmp_path, capsys):
    from r2r.rows.journal import Journal
    from r2r.teacher import annotate as stages
    from r2r.teacher import stats

    candidates = str(tmp_path / "candidates")
    chosen = AnnotateSettings(teacher="demo", passages=3, window=2, stride=1, samples=2)

    class Tell:
        @staticmethod
        def remote(number, counts):
            pass

    row_key = partial(ask.key, version="v", passages=3)
    parts = stages.passages.drawn(stages.datasets.open_candidates(candidates), None, chosen).parts(9)
    counting = stages._Counting(parts, chosen, row_key, tmp_path / "none", set(), Tell)
    counts = counting(pa.table({"part": [0]}))
    # Three rows, two samples, two windows of two.
    assert (counts["rows"], counts["calls"], counts["passages"], counts["guessed_calls"]) == (3, 12, 24, 6)
    stats.tell_plan(counts, Journal(tmp_path / "none"), chosen)
    said = capsys.readouterr().out
    assert "would ask 3 rows in 12 calls" in said
    assert "6 calls are about windows whose passages depend on earlier replies: their tokens are estimated" in said


def test_a_corpus_without_positives_is_a_mistake(candidates, tmp_path, capsys):
    flags = ["annotate", "--candidates", candidates, "--teacher", "demo", "--out", str(tmp_path / "out")]
    assert cli.main([*flags, "--corpus", "demo"]) == 2
    assert "corpus: demo: only positives take texts from it" in capsys.readouterr().err
    assert cli.main([*flags, "--positives", str(tmp_path / "none.txt")]) == 2
    assert "none.txt" in capsys.readouterr().err
    assert cli.main([*flags, "--positives", "demo#dev"]) == 2
    assert "positives: demo#dev: has no relevant passage for any query of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_server_takes_is_asked_told_and_paid_for_at_each_start(asked, tmp_path, capsys):
    prices = {"price_in": 1000, "price_out": 0, "seed": 1}
    assert len(asked(**prices)) == 3
    said = capsys.readouterr().out
    assert "the server takes response_format none, a seed, temperature None" in said and "(3 calls, 90 tokens)" in said
    assert "first refusal: 400: no response_format" in said
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["probes"] | {"takes": 0} == {
        **{"calls": 3, "prompt_tokens": 70, "completion_tokens": 20, "takes": 0},
        **{"refusal": "400: no response_format"},
    }
    assert stats["probes"]["takes"]["response_format"] == "none"
    assert stats["cost"]["spent"] == pytest.approx((stats["tokens"]["prompt"] + 70) / 1000)

    # The rows are finished: they are not asked again. The second start's request counts too.
    (tmp_path / "out" / "manifest.json").unlink()
    assert asked(**prices) == []
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["probes"]["calls"] == 6
    assert stats["cost"]["spent"] == pytest.approx((stats["tokens"]["prompt"] + 140) / 1000)


def test_no_server_is_asked_what_it_takes_if_that_might_cost_too_much(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calls, "open_budget", lambda *arguments: Broke())
    with pytest.raises(Stopped, match=r"0\.0000 of max_cost 0\.001 spent"):
        asked(price_in=1000, max_cost=0.001)
    assert "asks the server" not in capsys.readouterr().out


class Broke:
    """A budget with nothing left."""

    def __init__(self):
        self.reserve = self

    async def remote(self, call, most):
        return False


def test_rows_of_an_earlier_release_end_the_job_before_it_changes_anything(candidates, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "rows" / "0123456789abcdef").mkdir(parents=True)
    (out / "manifest.json").write_text("{}")
    for command in (["annotate", "--teacher", "demo"], ["rerank", "--student", "demo"]):
        assert cli.main([*command, "--candidates", candidates, "--out", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "/rows/0123456789abcdef: answers of a release before 0.2, whose keys counted limits" in line
        assert (out / "manifest.json").exists()
