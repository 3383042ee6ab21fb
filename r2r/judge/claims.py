"""Claims: what a comparison says about the order, as far as its words can be read with certainty.

Owns the reading. It is conservative: a sentence that it does not understand makes no claim. What it reads:

- a word of direction with the passages that it compares with: "less detailed than passages [2] and [4]", "ranked below
  [2]", "more specific compared to [3]", "not as direct as [1]", "Compared to [1], it gives less detail";
- the ends of the list: "the most relevant", "the least relevant", "ranked last", each except after "one of the ...".

What it passes over: what is conceded ("While it has more detail than [2], ...", "It has more detail than [2], but
..."), what is denied ("does not give more than [2]"), what points both ways ("less direct and more complex than [2]"),
and more of something bad or of no worth ("more general than [2]").

    claims("It is less direct than [1], but more than [4].", rank=3, of=5)    # {(1, 3), (3, 4)}
"""

from __future__ import annotations

import re
from functools import lru_cache

# "passages [1], [3], and [5]" as one word, so that commas separate clauses only.
_LIST = re.compile(
    r"(?:\b(?:the\s+)?(?:passages?|documents?)\s+)?\[\d+\](?:(?:\s*,\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+)"
    r"(?:passages?\s+)?\[\d+\])*",
    re.IGNORECASE,
)
_BETTER = r"more|better|higher|greater|superior"
_WORSE = r"less|worse|lower|fewer|weaker|inferior"
_GAP = rf"(?:(?!\b(?:{_BETTER}|{_WORSE})\b)[^<>])*?"
_COMPARED = re.compile(
    rf"\b(?:(?P<up>{_BETTER})|(?P<down>{_WORSE}))\b(?P<gap>{_GAP})"
    r"\b(?:than|to|(?:when\s+|as\s+)?compared\s+(?:to|with)|relative\s+to)\s+<(?P<named>[\d ]+)>"
)
_PLACED = re.compile(r"\b(?:(?P<up>above|ahead\s+of|before)|(?P<down>below|under|after|behind))\s+<(?P<named>[\d ]+)>")
_NOT_AS = re.compile(rf"\bnot\s+(?:\w+\s+){{0,3}}?as\b(?P<gap>{_GAP})\bas\s+<(?P<named>[\d ]+)>")
_FIRST_NAMED = re.compile(
    rf"^\W*(?:when\s+)?compared\s+(?:to|with)\s+<(?P<named>[\d ]+)>\s*,(?P<said>{_GAP})"
    rf"\b(?:(?P<up>{_BETTER})|(?P<down>{_WORSE}))\b(?P<gap>[^<>,]*)"
)
_ENDS = re.compile(
    r"\b(?:(?P<up>the\s+most|rank(?:ed|s)\s+(?:the\s+)?(?:first|highest|top))|"
    r"(?P<down>the\s+least|rank(?:ed|s)\s+(?:the\s+)?(?:last|lowest)))\b(?P<gap>[^<>,]*)"
)
_PLAIN_END = re.compile(r"\s+(?:\w+\s+and\s+)?relevant\b")
_SENTENCE, _CLAUSE = (
    re.compile(r"[.;:!?]\s+|[.;:!?]$"),
    re.compile(r",|\bbut\b|\bhence\b|\bmaking\b|\bbecause\b|\bsince\b"),
)
# What stands before "but" is conceded, unless the comparison only goes on: "less than [1], but more than [4]".
_BUT = re.compile(rf"\bbut\b(?!\s+(?:\w+\s+)?(?:{_BETTER}|{_WORSE})\b)")
_DIRECTION = re.compile(rf"\b(?:(?P<up>{_BETTER})|{_WORSE})\b")
_CONCEDES = re.compile(r"^\W*(?:(?:and\s+)?even\s+though|even\s+if|while|although|though|despite|whereas)\b")
_DENIES = re.compile(r"\b(?:no|not|never|neither|nor|without|lacks?|lacking|cannot)\b|n['\u2019]t\b")
_OF_NO_WORTH = re.compile(
    r"\b(?:irrelevant|unrelated|unnecessary|general|generic|redundant|repetitive|vague|broad|"
    r"indirect|noise|errors?|concise|brief)\b"
)
_ONE_OF = re.compile(r"\b(?:one|some|among|second|third|next)\b[^,]*$")


@lru_cache(maxsize=8192)
def claims(comparison: str, rank: int, of: int) -> frozenset[tuple[int, int]]:
    """Return the claims of a comparison as pairs of ranks: the first is said to stand above the second.

    comparison: names passages as `[rank]`. rank: that of its own passage. of: the length of the list. A pair of a
    passage with itself is a comparison that names its own passage: it cannot be true.
    """
    found: set[tuple[int, int]] = set()

    def add(match: re.Match[str], others: list[int]) -> None:
        pairs = [(rank, other) if match["up"] else (other, rank) for other in others]
        found.update(pair for pair in pairs if all(1 <= one <= of for one in pair))

    text = _LIST.sub(lambda match: f"<{' '.join(re.findall(r'[0-9]+', match[0]))}>", comparison.lower())
    for sentence in _SENTENCE.split(text):
        first = _FIRST_NAMED.search(sentence)
        if first and _is_plain(first["said"], first["gap"]):
            add(first, _numbers(first))
        for clause in _CLAUSE.split(_BUT.split(sentence)[-1]):
            if _CONCEDES.search(clause):
                continue
            for match in [*_COMPARED.finditer(clause), *_PLACED.finditer(clause)]:
                before = clause[: match.start()].rpartition(">")[2]
                both_ways = any(bool(word["up"]) != bool(match["up"]) for word in _DIRECTION.finditer(before))
                if not both_ways and _is_plain(before, match.groupdict().get("gap") or ""):
                    add(match, _numbers(match))
            for match in _NOT_AS.finditer(clause):
                found.update((other, rank) for other in _numbers(match) if 1 <= other <= of)
            for match in _ENDS.finditer(clause):
                plain = "rank" in match[0][:4] or _PLAIN_END.match(match["gap"])
                if (
                    plain
                    and "<" not in clause
                    and _is_plain(clause[: match.start()], "")
                    and not _ONE_OF.search(clause[: match.start()])
                ):
                    add(match, [other for other in range(1, of + 1) if other != rank])
    return frozenset(found)


def _is_plain(before: str, gap: str) -> bool:
    return not _DENIES.search(before) and not _DENIES.search(gap) and not _OF_NO_WORTH.search(gap)


def _numbers(match: re.Match[str]) -> list[int]:
    return [int(number) for number in match["named"].split()]
