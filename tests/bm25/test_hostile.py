"""Odd documents that real collections hold: each is indexed, counted or named in an error."""

import json

import pytest

from r2r.errors import BadInput

HOSTILE = {
    "empty": "",
    "blank": " \t\n\u2003",
    "nul": "before\x00after \x00",
    "only nul": "\x00\x00",
    "megabyte": "megaword " * 116_509,
    "one long word": "x" * 2**20,
    "repeated": "again " * 100_000,
    "two words/and a slash": "a spaced id",
    "tab\tand\nnewline": "another spaced id",
    "https://example.org/?q=1&r=%20#top": "an address",
    "文書": "日本語 emoji 😀 right\u202eto left",
    "x" * 1000: "a long id",
}


def _file(tmp_path, lines):
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))
    return str(file)


def test_hostile_documents_are_indexed_or_counted(lucene, tmp_path):
    broken = b'{"_id": "broken", "text": "caf\xe9 zeppelin \\ud83d"}\n'
    lines = [{"_id": docid, "title": "", "text": text} for docid, text in HOSTILE.items()]
    index = tmp_path / "index"
    counts = lucene("build", _file(tmp_path, [*lines, broken]), index, [0, 0.5, 1])
    total = {name: sum(one[name] for one in counts) for name in ("documents", "empty", "repaired")}
    # The documents "empty", "blank" and "only nul" have no text that a query could match.
    assert total == {"documents": len(HOSTILE) + 1, "empty": 3, "repaired": 1}
    asked = {
        "before": "nul",
        "megaword": "megabyte",
        "again": "repeated",
        "spaced": "two words/and a slash",
        "address": "https://example.org/?q=1&r=%20#top",
        "emoji": "文書",
        "日本語": "文書",
        "long id": "x" * 1000,
        "zeppelin": "broken",
        "x" * 255: "one long word",
    }
    found = dict(zip(asked, lucene("search", index, list(asked), 10), strict=True))
    for query, docid in asked.items():
        docids, scores = found[query]
        assert docid in docids, query
        assert all(score > 0 for score in scores), query
    assert set(found["spaced"][0]) == {"two words/and a slash", "tab\tand\nnewline"}


def test_a_docid_that_lucene_cannot_hold_is_named_with_its_place(lucene, tmp_path):
    file = _file(tmp_path, [{"_id": "d1", "text": "sound"}, {"_id": "y" * 40_000, "text": "unsound"}])
    with pytest.raises(BadInput, match=r"corpus.jsonl:2: Lucene refuses document y{80}; an id of at most"):
        lucene("build", file, tmp_path / "index", [0, 1])
