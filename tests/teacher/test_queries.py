"""Queries that a teacher writes: the draw, one passage, and the stage with a stubbed teacher and a stubbed search."""

import asyncio
import json
import random
from collections import Counter

import pytest

from r2r import cli, config, datasets, pipeline, tables
from r2r.config import QueriesSettings, RunFile
from r2r.datasets.documents import document
from r2r.errors import BadInput, Stopped
from r2r.llm import Refused
from r2r.llm.prompt import ByteTokenizer, chat_ids
from r2r.stage import identify
from r2r.teacher import calls, queries, write
from r2r.teacher.sample import Sample, smallest
from tests.llm.dummy import DummyModel
from tests.test_stage import BASE, changed

SERVER = "http://127.0.0.1:1/v1#model"
ROW = {"qid": "made-a", "docid": "a", "text": "Fleas\nA flea lives 100 days."}
DOCUMENTS = [document(f"d{at:02}", "", f"text {at:02} " + "x" * (at * 10)) for at in range(30)]


def drawn(parts, n, seed=0, min_chars=100):
    counts = Counter()
    found = [one for part in parts for one in smallest(iter(part), n, min_chars, seed, counts)]
    return [docid for _, docid, _ in sorted(found)[:n]], counts


def test_a_draw_depends_on_the_seed_alone():
    docids, counts = drawn([DOCUMENTS], 8)
    assert len(docids) == 8 and min(docids) >= "d09"
    assert counts == {"done": 30, "too_short": 10}
    # Neither on the order of the corpus nor on how it is cut.
    shuffled = random.Random(1).sample(DOCUMENTS, 30)
    assert drawn([shuffled[:3], shuffled[3:20], shuffled[20:]], 8)[0] == docids
    assert drawn([DOCUMENTS], 8, seed=1)[0] != docids
    # More passages: those drawn before are among them.
    assert drawn([DOCUMENTS], 12)[0][:8] == docids and len(drawn([DOCUMENTS], 99)[0]) == 20


class Model(DummyModel):
    """Answers with one written reply after the other; the last one stays."""

    def __init__(self, *replies, max_length=4096):
        super().__init__(lambda prompt: self._next(), max_length)
        self.replies, self.asked = list(replies), []

    async def complete(self, prompt, **options):
        self.asked.append({"prompt": prompt, **options})
        return await super().complete(prompt, **options)

    def _next(self):
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply


def said(query):
    return json.dumps({"query": query})


def ask(monkeypatch, model, row=ROW, examples=(), **more):
    monkeypatch.setattr(calls, "open_model", lambda *arguments: model)
    chosen = QueriesSettings(**{"teacher": SERVER, "n": 1, **more})
    writer = write.Writer(chosen, list(examples), lambda row: write.key(row, "v"), None)
    return asyncio.run(writer(row))


def test_a_sound_reply_becomes_a_query(monkeypatch):
    model = Model(said(" how long\n do fleas live "))
    table, row, counts = ask(monkeypatch, model)
    assert (table, row["qid"], row["docid"], row["query"]) == ("written", "made-a", "a", "how long do fleas live")
    assert row["key"] == write.key(ROW, "v") and row["attempts"] == counts["replies"] == 1
    assert row["prompt_tokens"] == counts["prompt_tokens"] > 0 and row["teacher"] == SERVER
    (asked,) = model.asked
    assert "Passage: Fleas\nA flea lives 100 days.\n\nAnswer in JSON" in asked["prompt"]
    assert "xample" not in asked["prompt"] and asked["schema"]["required"] == ["query"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("How long do fleas live?", "not JSON: holds no object"),
        (said(""), "query is empty"),
        (said("?!"), "query holds no word"),
        (said("flea " * 45), "query longer than 200 characters"),
        ('{"question": "how long"}', "query is missing or no text"),
        ('["how long"]', "no JSON object with a query"),
        (said("What IS a Flea?"), "query of an example"),
        ('{"query": "' + "flea " * 60, "reply longer than 256 tokens"),
    ],
)
def test_a_reply_that_fails_is_asked_again_and_then_a_reject(monkeypatch, wrong, reason):
    examples = [write.Example("what is a flea", "A flea is an insect.")]
    model = Model(wrong, wrong, said("how long do fleas live"))
    table, row, counts = ask(monkeypatch, model, examples=examples, temperature=0.2)
    assert (table, row["attempts"], counts["attempts_3"]) == ("written", 3, 1)
    assert [one["temperature"] for one in model.asked] == pytest.approx([0.2, 0.5, 0.8])
    assert len({one["seed"] for one in model.asked}) == 3
    table, row, _ = ask(monkeypatch, Model(wrong), examples=examples)
    assert (table, row["reason"], row["attempts"], row["reply"][:20]) == ("rejects", reason, 3, wrong[:20])


def test_what_a_server_refuses_is_not_asked_again(monkeypatch):
    table, row, _ = ask(monkeypatch, Model(Refused("400: no")))
    assert (table, row["reason"], row["attempts"]) == ("rejects", "refused: 400: no", 1)


def test_a_repaired_reply_and_a_cut_passage_are_counted(monkeypatch):
    model = Model(f"```json\n{said('how long')}\n```")
    table, _, counts = ask(monkeypatch, model, ROW | {"text": "flea </s> " * 999})
    assert (table, counts["repaired"], counts["cut_texts"]) == ("written", 1, 1)
    assert "</s>" not in model.asked[0]["prompt"]
    assert len(chat_ids(model.tokenizer, model.asked[0]["prompt"])) + 256 <= model.max_length


def test_examples_are_shown_and_read_strictly(monkeypatch, tmp_path):
    file = tmp_path / "examples.jsonl"
    lines = [{"query": "what is a flea", "passage": "A flea <|im_end|> is small."}, {"query": "dogs", "passage": "D."}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    examples = write.read_examples(str(file))
    model = Model(said("how long"))
    ask(monkeypatch, model, examples=examples)
    prompt = model.asked[0]["prompt"]
    assert "Example passage: A flea < |im_end|> is small.\nExample query: what is a flea\n" in prompt
    assert prompt.index("Example query: dogs") < prompt.index("Passage: Fleas")
    with pytest.raises(BadInput, match="of the teacher's 500 tokens, more than half"):
        ask(monkeypatch, Model(said("how long"), max_length=500), examples=examples)
    for line, wrong in (('{"query": "x"}', 'no text in "passage"'), ("no", "is not JSON"), ("", "holds no example")):
        file.write_text(line + "\n")
        with pytest.raises(BadInput, match=wrong):
            write.read_examples(str(file))


FIELDS = QueriesSettings.model_fields
CHOICE = {"n", "min_chars", "found_within"}


def version(run_file):
    chosen = run_file.make_queries.stage_settings(run_file.annotate)
    made = queries.stage("demo", None, "out", chosen)
    return queries._version(chosen, identify(made))


@pytest.mark.parametrize("name", FIELDS)
def test_a_key_changes_with_what_changes_the_query_and_with_nothing_else(name):
    same = version(changed("make_queries", name)) == version(RunFile(**BASE))
    assert same == (name in CHOICE or QueriesSettings.kind(name) == "how")


def test_a_key_knows_the_passage_and_the_prompt(monkeypatch):
    usual = write.key(ROW, "v")
    assert len({usual, write.key(ROW | {"text": "x"}, "v"), write.key(ROW | {"docid": "b"}, "v")}) == 3
    before = version(RunFile(**BASE))
    monkeypatch.setattr(write, "VERSION", "another")
    assert version(RunFile(**BASE)) != before


class Teacher(Model):
    """Writes the query that `says` has for a passage, "about DOCID" otherwise. Notes the docids."""

    def __init__(self):
        super().__init__("")
        self.says, self.about = {}, []

    async def complete(self, prompt, **options):
        docid = prompt.rpartition("Passage: ")[2].split()[0]
        self.about.append(docid)
        self.replies = [self.says.get(docid, said(f"about {docid}"))]
        return await super().complete(prompt, **options)

    def close(self):
        """It is asked by several runs."""


@pytest.fixture
def make(tmp_path, monkeypatch, rows_here):
    """The stage over 20 passages, in this process. It returns the docids that a run asks about, sorted."""

    def draw(corpus, n, min_chars, seed):
        found = [{"docid": f"d{at}", "text": f"d{at} is a passage"} for at in range(min(n, 20))]
        return Sample(found, 25, 5)

    teacher = Teacher()
    monkeypatch.setattr(queries, "draw", draw)
    monkeypatch.setattr(queries, "facts", lambda index: None)
    monkeypatch.setattr(calls, "open_model", lambda *arguments: teacher)
    lost = set()

    def places(index, rows, within):
        return {row["qid"]: 0 if row["docid"] in lost else 1 + (int(row["docid"][1:]) % within) for row in rows}

    monkeypatch.setattr(queries, "places", places)
    fingerprint = datasets.fingerprint("demo", "corpus")
    (tmp_path / "index").mkdir()
    manifest = {"identity": "", "content": "i", "files": {}, "inputs": {"corpus": {"fingerprint": fingerprint}}}
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest))

    def run(says=None, not_found=(), retry_rejects=False, index=True, **more):
        before, teacher.says = len(teacher.about), says or {}
        lost.clear()
        lost.update(not_found)
        chosen = QueriesSettings(**{"teacher": SERVER, "n": 6, "max_reject_rate": 0.5, **more})
        given = str(tmp_path / "index") if index else None
        queries.make_queries("demo", given, tmp_path / "out", chosen, retry_rejects)
        return sorted(teacher.about[before:])

    return run


def result(out):
    return {name: tables.read(out, name).to_pylist() for name in ("queries", "qrels", "rejects", "written", "passages")}


def test_every_passage_ends_in_a_query_or_in_a_reject_with_its_reason(make, tmp_path, capsys):
    out = tmp_path / "out"
    asked = make({"d1": "no", "d3": said("About  D0!"), "d5": said("Fleas?")}, not_found={"d4"}, attempts=2)
    assert asked == sorted(["d0", "d1", "d1", "d2", "d3", "d4", "d5"])
    found = result(out)
    assert {row["qid"]: row["query"] for row in found["queries"]} == {
        **{"made-d0": "about d0", "made-d2": "about d2", "made-d5": "Fleas?"}
    }
    assert [(row["qid"], row["docid"], row["relevance"]) for row in found["qrels"]] == [
        (f"made-{docid}", docid, 1) for docid in ("d0", "d2", "d5")
    ]
    assert [(row["qid"], row["reason"], row["reply"], row["attempts"]) for row in found["rejects"]] == [
        ("made-d1", "not JSON: holds no object", "no", 2),
        ("made-d3", "same query as another: made-d0", "About D0!", 1),
        ("made-d4", "its passage is not found again: among the first 20", "about d4", 1),
    ]
    assert len(found["passages"]) == 6 and len(found["written"]) == 5
    stats = json.loads((out / "stats.json").read_text())
    assert stats["corpus"] == {"documents": 25, "too_short": 5, "drawn": 6}
    assert stats["rows"] == {"queries": 3, "rejects": 3, "unasked": 0} and stats["rejects"] == {"not JSON": 1}
    assert stats["filtered"] == {"same query as another": 1, "its passage is not found again": 1}
    assert stats["found_again"] == {"within": 20, "share": 0.8, "first_share": 0.2}
    printed = capsys.readouterr().out
    assert "filtered: 1 its passage is not found again" in printed and "rejected: 1 not JSON" in printed
    # The folder is a dataset of queries and of qrels.
    assert datasets.read_queries(str(out)).num_rows == datasets.read_qrels(str(out)).num_rows == 3
    content = json.loads((out / "manifest.json").read_text())["content"]
    assert datasets.fingerprint(str(out), "queries") == datasets.fingerprint(str(out), "qrels") == content
    assert datasets.read_excluded(str(out)) == {}
    datasets.check(str(out), "queries")
    datasets.check(str(out), "qrels")


def test_only_new_passages_are_asked_about(make, tmp_path):
    assert len(make()) == 6
    assert make() == []
    assert make(n=9) == ["d6", "d7", "d8"]
    assert make(n=4, found_within=3) == [] and len(result(tmp_path / "out")["queries"]) == 4
    assert make(n=4, seed=1) == ["d0", "d1", "d2", "d3"]


def test_a_plan_counts_what_is_not_finished_and_asks_nothing(make, tmp_path, capsys):
    make(n=4)
    chosen = QueriesSettings(teacher=SERVER, n=6, price_in=1e6, price_out=1.0)
    queries.dry_run("demo", str(tmp_path / "index"), tmp_path / "out", chosen)
    printed = capsys.readouterr().out
    prompts = [write.Prompter(chosen, []).message(f"d{at} is a passage")[0] for at in (4, 5)]
    tokens = sum(len(chat_ids(ByteTokenizer(), prompt)) for prompt in prompts)
    assert "queries: 25 documents, 5 too short, 6 drawn" in printed
    assert f"would ask 2 rows in 2 calls of {tokens:,} prompt tokens, if each is asked once, 4 are done" in printed
    assert f"(as the 4 replies so far), at most 512\nqueries: cost: estimated {tokens:,.2f}" in printed
    assert printed.endswith("queries: nothing was asked\n") and make(n=4) == []
    queries.show_prompt("demo", None, chosen)
    assert "\nPassage: d0 is a passage\n" in capsys.readouterr().out


def test_what_could_not_be_read_is_asked_again_and_nothing_else(make, tmp_path):
    make({"d1": "no"}, not_found={"d2"})
    content = json.loads((tmp_path / "out" / "manifest.json").read_text())["content"]
    assert make(not_found={"d2"}, retry_rejects=True) == ["d1"]
    assert [row["qid"] for row in result(tmp_path / "out")["rejects"]] == ["made-d2"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["content"] != content


def test_without_an_index_nothing_is_searched_for_and_it_is_told(make, tmp_path, capsys):
    make(index=False, not_found={"d0"})
    assert len(result(tmp_path / "out")["queries"]) == 6
    assert "no index was given, so no query was tried" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["found_again"] is None


def test_limits_end_the_stage_and_keep_what_was_done(make, tmp_path):
    with pytest.raises(Stopped, match=r"2 rows rejected, more than max_reject_rate 0\.1 allows: 2 not JSON"):
        make({"d1": "no", "d2": "no"}, max_reject_rate=0.1)
    assert len(result(tmp_path / "out")["queries"]) == 4
    assert make({"d1": "no", "d2": "no"}) == []
    with pytest.raises(Stopped, match="none of 2 is left: 1 not JSON, 1 its passage is not found again"):
        make(n=2, not_found={"d0", "d1"})
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_index_of_another_corpus_is_told(make, tmp_path):
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    manifest["inputs"]["corpus"] = {"fingerprint": "x", "source": "beir:other"}
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="was built from beir:other; give the index of demo"):
        make()


@pytest.mark.parametrize(
    ("flags", "wrong"),
    [
        (["--teacher", "demo"], "n: missing setting"),
        (["--n", "5"], "teacher: missing setting"),
        (["--teacher", "demo", "--n", "0"], "n: '0'"),
        (["--teacher", "demo", "--n", "5"], "out: missing"),
        (["--teacher", "replies:x", "--n", "5", "--out", "OUT"], "recorded, so it cannot write queries"),
        (["--teacher", "demo", "--n", "5", "--out", "OUT", "--index", "none"], "none: holds no finished index"),
        (["--teacher", "demo", "--n", "5", "--out", "OUT", "--examples", "none.jsonl"], "none.jsonl: no such file"),
        (["--teacher", "demo", "--n", "5", "--out", "OUT", "--max-cost", "5"], "max_cost: needs prices"),
    ],
)
def test_mistakes(tmp_path, capsys, flags, wrong):
    flags = [str(tmp_path / "out") if flag == "OUT" else flag for flag in flags]
    assert cli.main(["queries", "--corpus", "demo", *flags]) == 2
    assert wrong in capsys.readouterr().err and not (tmp_path / "out").exists()


MADE = {"out": "run", "corpus": "demo", "queries": "demo", "qrels": "demo", "distill": {"student": "demo"}}


def test_in_a_run_file_the_made_queries_are_the_train_queries():
    settings = RunFile(**MADE, annotate={"teacher": "demo"}, make_queries={"n": 5})
    stages = list(pipeline.stages_of(settings))
    assert [one.out.name for one in stages[:5]] == ["index", "queries", "retrieve", "retrieve-train", "annotate"]
    assert {name: one.source for name, one in stages[1].inputs.items()} == {
        **{"corpus": "demo", "teacher": "demo", "index": "run/index"}
    }
    assert stages[3].inputs["queries"].source == "run/queries"
    off = RunFile(**MADE, annotate={"teacher": "demo"}, train_queries="demo#train", make_queries={"teacher": "x"})
    assert "queries" not in [one.out.name for one in pipeline.stages_of(off)]


def test_without_a_teacher_of_its_own_the_section_takes_annotates():
    annotate = {
        "teacher": "big",
        "gpus": 4,
        "actors": 2,
        "min_actors": 2,
        "price_in": 1.0,
        "temperature": 0.5,
        "attempts": 9,
    }
    annotate["engine"] = {"max_model_len": 512}
    settings = RunFile(**MADE, annotate=annotate, make_queries={"n": 5, "actors": 1})
    found = settings.make_queries.stage_settings(settings.annotate)
    assert (found.teacher, found.gpus, found.price_in, found.engine) == ("big", 4, 1.0, {"max_model_len": 512})
    assert (found.actors, found.min_actors, found.temperature, found.attempts, found.max_tokens) == (1, 1, 0.0, 3, 256)
    own = RunFile(**MADE, annotate=annotate, make_queries={"n": 5, "teacher": "small"})
    found = own.make_queries.stage_settings(own.annotate)
    assert (found.teacher, found.gpus, found.engine) == ("small", 0, {})


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ({"train_queries": "demo#train"}, "train_queries: demo#train: make_queries makes them; leave one of the two"),
        ({"annotate": {"teacher": "teacher:x"}}, "make_queries: teacher:x brings its own queries"),
        ({"annotate": {"teacher": "replies:x"}}, "make_queries.teacher: replies:x cannot write queries"),
        ({"corpus": None, "queries": None, "candidates": "x"}, "make_queries: needs a corpus"),
        ({"make_queries": {"n": 0}}, "train_queries: missing"),
    ],
)
def test_mistakes_of_a_run_file(more, wrong):
    values = {**MADE, "annotate": {"teacher": "demo"}, "make_queries": {"n": 5}, **more}
    with pytest.raises(BadInput, match=wrong):
        config.validate(RunFile, values, "run.yaml")
