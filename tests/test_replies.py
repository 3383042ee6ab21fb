"""Free-form listwise replies: a ranking is read, and what only looks like one is refused."""

import json
import re
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2r.replies import parse_order


@pytest.mark.parametrize(
    "text",
    [
        "[3] > [1] > [2]",
        "\n[3]>[1]>[2]\n",
        "[3] >\n[1] >\n[2]",
        "[3]\n> [1]\n> [2]",
        "> [3] > [1] > [2]",
        "[3] >> [1] > [2].",
        "[3] → [1] → [2]",
        "[3] -> [1] -> [2]",
        "[3] ≻ [1] ≻ [2]",
        "[3] &gt; [1] &gt; [2]",
        "\uff3b\uff13\uff3d\uff1e\uff3b\uff11\uff3d\uff1e\uff3b\uff12\uff3d",
        "【3】>【1】>【2】",
        "**[3]** > **[1]** > **[2]**",
        '"[3] > [1] > [2]"',
        "[[3] > [1] > [2]]",
        "[03] > [01] > [02]",
        "3 > 1 > 2",
        "3>1>2",
        "Passage 3 > Passage 1 > Passage 2",
        "Passage [3] > Passage [1] > Passage [2]",
        "[Passage 3] > [Passage 1] > [Passage 2]",
        "Document 3 > Document 1 > Document 2",
        "doc_3 > doc_1 > doc_2",
        "[3], [1], [2]",
        "[3];[1];[2]",
        "[3] [1] [2]",
        "[3][1][2]",
        "[3]\r\n[1]\r\n[2]\r\n",
        "- [3]\n- [1]\n- [2]",
        "* Passage 3\n* Passage 1\n* Passage 2",
        "3, 1, 2",
        "3\n1\n2",
        "[3, 1, 2]",
        "[\n  3,\n  1,\n  2\n]",
        "[[3], [1], [2]]",
        '["3", "1", "2"]',
        "['[3]', '[1]', '[2]']",
        "1. [3]\n2. [1]\n3. [2]",
        "1. [3] 2. [1] 3. [2]",
        "1. [3] > 2. [1] > 3. [2]",
        "1. [3] > [1] > [2]",
        "1) 3\n2) 1\n3) 2",
        "(1) [3]\n(2) [1]\n(3) [2]",
        "1. Passage 3\n\n2. Passage 1\n\n3. Passage 2",
        "Rank 1: [3]\nRank 2: [1]\nRank 3: [2]",
    ],
)
def test_an_order_is_read_however_it_is_written(text):
    parsed = parse_order(text, 3)
    assert (parsed.status, parsed.order, parsed.repairs) == ("ok", [3, 1, 2], [])


@pytest.mark.parametrize(
    ("text", "repairs"),
    [
        ("[3] > [1] > [3] > [2]", ["duplicate dropped"]),
        ("[3] > [1]", ["missing appended"]),
        ("[3] > [1] > [1]", ["duplicate dropped", "missing appended"]),
        ("[3] > [12] > [1] > [2]", ["out of range dropped"]),
        ("[3] > [99999999999999999999] > [1] > [2]", ["out of range dropped"]),
        ("[3], [1], [3], [2]", ["duplicate dropped"]),
        ("3] > [1] > [2]", ["brackets repaired"]),
        ("3 > [1] > [2]", ["brackets repaired"]),
        ("[3 > 1 > 2]", ["brackets repaired"]),
        ("[3] > [1] > [2] >", ["cut-off end dropped"]),
        ("[3] > [1] > [", ["cut-off end dropped", "missing appended"]),
        ("[3] > [1] > [2", ["cut-off end dropped", "missing appended"]),
        ("1. [3]\n2. [1]\n3. [", ["cut-off end dropped", "missing appended"]),
        ("1. [3] > 2. [1] > 3", ["brackets repaired", "cut-off end dropped", "missing appended"]),
        ("```\n[3] > [1] > [2]\n```", ["fences removed"]),
        ("<answer>[3] > [1] > [2]</answer>", ["tags removed"]),
        ("[3] > [1] > [2]<|im_end|>", ["tags removed"]),
        ("<think>First [1] > [2] > [3]?</think>[3] > [1] > [2]", ["thinking removed"]),
        ("[1] > [2] > [3] is the order shown.</think>\n\n[3] > [1] > [2]", ["thinking removed"]),
        ("<think>a<think>b</think>[1] > [2]</think>[3] > [1] > [2]", ["thinking removed"]),
        ("The top 5 passages: [3] > [1] > [2]", ["prose removed"]),
        ("Of the top 5: 3 > 1 > 2", ["prose removed"]),
        ("100% of them are ranked. [3] > [1] > [2]", ["prose removed"]),
        ("The ranking is [3] > [1] > [2], as [2] is off topic.", ["prose removed"]),
        ("[3] > [1] > [2]\n\nPassage [3] says that 5 > 4 [12]; [1] > [2] as it is longer.", ["prose removed"]),
        ("[3] (answers it) > [1] (in part) > [2] (not at all)", ["prose removed"]),
        ("[3] > [1] > [2]\n\nFinal answer: [3] > [1] > [2]", ["prose removed"]),
        ("Sure! Here is the ranking:\n\n[3], [1], [2]", ["prose removed"]),
        ("Passages in order of relevance:\n1. Passage 3\n2. Passage 1\n3. Passage 2", ["prose removed"]),
        ("1. **[3]**: answers it, as [1] does not\n2. **[1]**: in part\n3. **[2]**: not at all", ["prose removed"]),
        ("1. [3]: has 2 reasons\n2. [1]: has 1, see 1", ["missing appended", "prose removed"]),
        ("Ranking:\n> [3] > [1] > [2]", ["prose removed"]),
        ("e.g., [2] > [1].\n\n[3] > [1] > [2]", ["prose removed"]),
    ],
)
def test_what_leaves_the_order_beyond_doubt_is_repaired(text, repairs):
    parsed = parse_order(text, 3)
    assert (parsed.status, parsed.order, parsed.repairs) == ("repaired", [3, 1, 2], repairs)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no ranking"),
        ("I'm sorry, but I cannot rank these passages.", "no ranking"),
        ("Error 429: too many requests, retry after 3 seconds", "no ranking"),
        ("<html><body><h1>502 Bad Gateway</h1>1 > 2</body></html>", "no ranking"),
        ('{"error": {"code": 2, "message": "limit 3 > 1"}}', "no ranking"),
        ('{"scores": [3, 1, 2, 5, 4]}', "no ranking"),
        ("Scores: [3, 1, 2, 5, 4]", "nothing says is a ranking"),
        ("Ranks: 3, 1, 2, 5, 4", "nothing says is a ranking"),
        ("[3, 1, 2, 5, 3]", "no permutation"),
        ("3, 1, 2", "no permutation"),
        ("[3], [1], [2]", "only some"),
        ("[3][1][2]", "only some"),
        ("- [3]\n- [1]\n- [2]", "only some"),
        ("[0.9, 0.1, 0.5, 0.3, 0.2]", "no ranking"),
        ("[1]: 3\n[2]: 1\n[3]: 5\n[4]: 2\n[5]: 4", "no ranking"),
        ("5 passages are provided, so the ranking should be from 1 to 5.", "no ranking"),
        ("Relevant: [5], [4], [3], [2], [1]", "nothing says is a ranking"),
        ("I looked at [1], [2], [3], [4] and [5].", "no ranking"),
        ("C > A > B > E > D", "no ranking"),
        ("① > ② > ③ > ④ > ⑤", "no ranking"),
        ("[] > []", "no ranking"),
        ("Two scores differ:\n5 > 3 > 1", "no ranking"),
        ("[1] > [2]", "names 2 of 5"),
        ("[6] > [7] > [8] > [9] > [10]", "names 0 of 5"),
        ("[1] > [2] > [3] > [6] > [7] > [8] > [9]", "not from 1 to 5"),
        ("[0] > [1] > [2] > [3] > [4]", "passage 0"),
        ("<think>[3] > [1] > [2] > [5] > [4]", "never ends"),
        ("<think>[3] > [1] > [2] > [5] > [4]</think>", "no ranking"),
        ("<think></think><think>[3] > [1] > [2] > [5] > [4]", "never ends"),
        ("[3] > [1] > [2] > [5] > [4]\n\nFinal: [3] > [2] > [1] > [5] > [4]", "differ"),
        ("[3], [1], [2], [5], [4]\n\n[3], [2], [1], [5], [4]", "differ"),
        ("1. [3] > [1]\n2. [1] > [2]\n3. [4] > [5]", "differ"),
        ("1. [1] > [2] 2. [1] > [3] 3. [1] > [4]", "within a sentence"),
        ("[1]-[5]", "no ranking"),
        ("[2] > [1], [3]-[5]", "cannot be read"),
        ("[1]-[3] > [4] > [5]", "cannot be read"),
        ("[3] > [1] = [2] > [5] > [4]", "cannot be read"),
        ("[1] = [3] > [2] > [5]", "cannot be read"),
        ("[1] >= [2] >= [3] >= [4]", "no ranking"),
        ("[1] < [2] < [3] < [4] < [5]", "no ranking"),
        ("[3] > ... > [1] > [2] > [4]", "cannot be read"),
        ("[3] > [1] > [2] > ... > [4]", "cannot be read"),
        ("Passage three > [1] > [2] > [4]", "cannot be read"),
        ("[1.5] > [2] > [3] > [4]", "cannot be read"),
        ("[3] > [1] > [2] and [4], [5]", "cannot be read"),
        ("The top 5 > [3] > [1] > [2]", "cannot be read"),
        ("Clearly [3] > [1] > [2] here.", "within a sentence"),
        ("I cannot say whether [3] > [1] > [2] > [5] > [4].", "no ranking"),
        ("Is it [3] > [1] > [2] > [5] > [4]?", "no ranking"),
        ("The format should be [] > [], e.g., [4] > [2] > [1]", "no ranking"),
        ("Example:\n[4] > [2] > [1]", "no ranking"),
        ("5. [3]\n4. [1]\n3. [2]\n2. [5]\n1. [4]", "not numbered from 1"),
        ("[1] Fleas live.\n[2] Dogs bark.\n[3] Cats purr.\n[4] Cows moo.\n[5] Ants dig.", "no ranking"),
        ("1. [1] Fleas live.\n2. [2] Dogs bark.\n3. [3] Cats purr.", "in the order shown"),
        ("Passages ranked below:\n[1]\n[2]\n[3]\n[4]\n[5]", "in the order shown"),
    ],
)
def test_what_only_looks_like_an_order_fails(text, reason):
    parsed = parse_order(text, 5)
    assert parsed.status == "failed" and reason in parsed.reason
    assert parsed.order == [] == parsed.repairs


def test_exactly_half_of_the_passages_is_enough_and_one_alone_is_no_order():
    assert parse_order("[3] > [1]", 4).order == [3, 1, 2, 4]
    assert parse_order("[2]", 2).status == "failed"
    assert parse_order("[1]", 1).order == [1]


@pytest.mark.parametrize(
    "text", ["-", ">", "(", "[", "[1", "[1]\n", "[1] (", "1. [1]\n", "[1] > [2]\n", "<a", "<think>", "1, ", "passage "]
)
def test_a_long_reply_takes_no_long_time(text):
    begin = time.process_time()
    parse_order(text * (60_000 // len(text)) + "=", 20)
    assert time.process_time() - begin < 5


def test_the_last_number_of_a_cut_reply_may_be_half_a_number():
    ten = " > ".join(map(str, range(2, 12)))
    assert parse_order(ten + " > 1", 12).repairs == ["cut-off end dropped", "missing appended"]
    assert parse_order(ten + " > 1 > 12", 12).status == "ok"


SIGNS, ITEMS = r"\[\d+\](?: > \[\d+\])*", r"\[\d+\](?: > \d+\. \[\d+\])+"
# The kinds of the 1,897 recorded replies: name, look, count, and expected results. A person has read every reply of the
# kinds with fewer than 50, and at least 30 of each other kind.
REAL = [
    ("a chain", rf"\s*{SIGNS}", 1096, {"ok": 914, "repaired": 182}),
    ("a chain, its first bracket lost", rf"\d+\] > {SIGNS}", 296, {"repaired": 296}),
    ("a chain, its first two brackets lost", rf"\d{{1,2}} > {SIGNS}", 322, {"repaired": 322}),
    ("a chain after a number of no passage", rf"\d{{3,}} > {SIGNS}", 8, {"repaired": 8}),
    ("a chain in a loop, cut off", rf"\d+ > {SIGNS} >(?: \[\d*)?", 140, {"repaired": 140}),
    ("a chain after a sentence", rf"100% of the \w+ should be included\. {SIGNS}", 4, {"repaired": 4}),
    ("a chain numbered as a whole", rf"1\. {SIGNS}", 8, {"ok": 2, "repaired": 3, "failed": 3}),
    ("a chain numbered one by one", rf"1\. {ITEMS}(?: > \d+)?", 5, {"ok": 1, "repaired": 2, "failed": 2}),
    ("a numbered list", r"1\. \[\d+\](?: \d+\. \[\d+\])+", 3, {"ok": 1, "repaired": 2}),
    ("a numbered list of pairs, cut off", r"(?:\d+\. \[1\] > \[\d+\] )+1", 1, {"failed": 1}),
    ("a chain that ends at once", r"1\. \[1\] > \[2\] >", 1, {"failed": 1}),
    ("prose about passages, or none", r"(?:[12]0 passages|Home / |ð).*", 8, {"failed": 8}),
    ("passages said again", r"(?s)Â\s+\[1\].*", 4, {"failed": 4}),
    ("the example of the prompt", r"\s*\[\] > \[\]", 1, {"failed": 1}),
]
NO_ORDER = {"a numbered list of pairs, cut off", *(name for name, *_ in REAL[-3:])}


def test_real_replies_are_read_as_a_person_reads_them(data):
    statuses = {}
    for line in (data / "listwise-replies/dl19.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        reply, n = record["reply"], record["passages"]
        (kind,) = [name for name, look, *_ in REAL if re.fullmatch(look, reply)]
        parsed = parse_order(reply, n)
        statuses.setdefault(kind, Counter())[parsed.status] += 1
        # Every number names a passage, except list numbers, the one percentage, and the last number of a cut reply.
        numbers = [int(number) for number in re.findall(r"\d+", re.sub(r"\d+(?:\. |%)|> \d+$", "", reply))]
        named = [number for number in dict.fromkeys(numbers) if number <= n]
        if kind in NO_ORDER or 2 * len(named) < n:
            assert parsed.status == "failed", reply
        else:
            assert parsed.order == named + sorted(set(range(1, n + 1)) - set(named)), reply
            whole = sorted(numbers) == list(range(1, n + 1)) and re.match(r"\s*\[|1\. ", reply) is not None
            assert (parsed.status == "ok") == whole, reply
    assert statuses == {name: Counter(read) for name, _, _, read in REAL}
    assert {name: counts.total() for name, counts in statuses.items()} == {name: count for name, _, count, _ in REAL}


PERMUTATIONS = st.integers(2, 20).flatmap(lambda n: st.permutations(range(1, n + 1)))
NOTATIONS = [
    lambda order: " > ".join(f"[{number}]" for number in order),
    lambda order: " > ".join(map(str, order)),
    lambda order: " > ".join(f"Passage {number}" for number in order),
    lambda order: " > ".join(f"**[{number}]**" for number in order),
    lambda order: ", ".join(f"[{number}]" for number in order),
    lambda order: ", ".join(map(str, order)),
    lambda order: "\n".join(f"- [{number}]" for number in order),
    lambda order: "\n".join(map(str, order)),
    lambda order: "\n".join(f"{at}. [{number}]" for at, number in enumerate(order, 1)),
    lambda order: "\n".join(f"{at}. {number}" for at, number in enumerate(order, 1)),
    lambda order: "\n".join(f"{at}) Passage {number}" for at, number in enumerate(order, 1)),
    lambda order: " > ".join(f"{at}. [{number}]" for at, number in enumerate(order, 1)),
    json.dumps,
]
PIECES = ["[1]", "[2]", "[3", "4]", "5", "Passage 6", "[0]", "1.", "2)", "[1, 2]", "\ud800", "\uff19", "²", "٣"]
PIECES += [" > ", ">", ", ", "\n", ". ", ": ", "=", "-", "?", "(", ")", "{", "}", '"', "```"]
PIECES += ["and", "ranking", "e.g.", "<think>", "</think>"]
TEXTS = st.text() | st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@given(TEXTS, st.integers(1, 20))
def test_whatever_the_text_the_order_is_a_permutation_or_none(text, n):
    parsed = parse_order(text, n)
    assert (parsed.status == "failed") == bool(parsed.reason) == (parsed.order == [])
    assert (parsed.status == "repaired") == bool(parsed.repairs)
    if parsed.order:
        assert sorted(parsed.order) == list(range(1, n + 1))
        again = parse_order(NOTATIONS[0](parsed.order), n)
        assert again.order == parsed.order and (again.status == "ok" or n == 1)


@pytest.mark.parametrize("notation", NOTATIONS)
@given(order=PERMUTATIONS)
def test_an_order_written_down_is_read_back(notation, order):
    parsed = parse_order(notation(order), len(order))
    assert (parsed.status, parsed.order) == ("ok", order)


@pytest.mark.parametrize(
    "frame", ["<think>[2] > [1]</think>{}", "```\n{}\n```", "The top 5 of them:\n{}", "{}\n\nSo [1] it is."]
)
@given(order=PERMUTATIONS)
def test_an_order_is_found_in_what_surrounds_it(frame, order):
    parsed = parse_order(frame.format(NOTATIONS[0](order)), len(order))
    assert (parsed.status, parsed.order) == ("repaired", order)


@pytest.mark.parametrize("notation", NOTATIONS)
@given(order=PERMUTATIONS, data=st.data())
def test_a_reply_cut_anywhere_never_gives_a_number_that_was_not_written(notation, order, data):
    text = notation(order)
    parsed = parse_order(text[: data.draw(st.integers(0, len(text)))], len(order))
    if parsed.order:
        kept = next((at for at in range(len(order)) if parsed.order[at] != order[at]), len(order))
        assert parsed.order[kept:] == sorted(parsed.order[kept:])


@given(st.text(st.characters(exclude_characters=">≻→⇒➔➜\uff1e"), max_size=200))
def test_noise_is_no_order(text):
    assert parse_order(text, 20).status == "failed"
