"""The stage with recorded annotations, whose replies need no engine, and its plan."""

import json

import pytest

from r2r import builtin, cli, tables

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
        (["--teacher", "demo", "--samples", "0"], "samples: '0'"),
        (["--teacher", "demo", "--max-reject-rate", "2"], "max_reject_rate: '2'"),
    ],
)
def test_mistakes(tmp_path, capsys, flags, said):
    assert cli.main(["annotate", *(str(tmp_path / "out") if flag == "OUT" else flag for flag in flags)]) == 2
    assert said in capsys.readouterr().err
