"""The free-form listwise reply, such as "[2] > [1]", a numbered list of passages, or "2, 1".

Owns what counts as a ranking in free text and what only looks like one. The reply is cut into tokens. One character
stands for the kind of each token, and short patterns over these characters find the ranking: "[2] > [1]" is "p>p", and
"top 5: [2] > [1]" is "wn:p>p".

    parse_order("[3] > [1] > [2]", 3).order == [3, 1, 2]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from r2r.replies.strict import FENCE, Parsed, Unsound, complete_order, without_thinking


def parse_order(text: str, n: int) -> Parsed:
    """Read a reply about `n` passages. The result has no reasons: a free-form reply holds only an order."""
    repairs: set[str] = set()
    try:
        order = complete_order(_ranked_numbers(_plain_text(text, repairs), n, repairs), n, repairs)
    except Unsound as error:
        return Parsed("failed", str(error))
    empty = [""] * n
    return Parsed("repaired" if repairs else "ok", "", order, empty, empty, empty, sorted(repairs))


_LABEL = r"(?:passage|document|doc|text)s?\ ?[#-]?\ ?"
_SIGN = r"(?:>{1,3}(?![>=])|[-\u2013\u2014]{1,3}>(?![>=])|≻|→|⇒|➔|➜)"
_KINDS = {
    # A list's own number: before a passage, or at the start of a line.
    "m": rf"(?<![\w.\[])(?:rank\ ?)?\#?\(?[0-9]+\ ?[.):](?=\ ?(?:\[\ ?(?:{_LABEL})?[0-9]|{_LABEL}\[?[0-9]))"
    r"|(?m:^)\ ?\(?[0-9]+[.)](?=\ )",
    "l": r"\[\s*[0-9]+(?:\s*,\s*[0-9]+)+\s*\]",  # numbers in one pair of brackets
    "p": rf"(?:\b{_LABEL})?\[\ ?(?:{_LABEL})?[0-9]+\ ?\]|\b{_LABEL}[0-9]+(?![\w%]|\.[0-9])",  # a passage
    "c": rf"(?:\b{_LABEL})?\[\ ?(?:{_LABEL})?[0-9]*\Z|\b{_LABEL}\Z",  # a passage cut off by the end of the reply
    "h": rf"\[\ ?[0-9]+(?=\s*{_SIGN})|(?<![\w.,-])[0-9]+\ ?\]",  # a passage without one of its brackets
    "n": r"(?<![\w.%+-])[0-9]+(?![\w%]|[.:/][0-9])",  # a bare number
    ">": _SIGN,
    ",": "[,;、]",
    "\n": r"\n",
    ".": "[.!。]",
    ":": ":",
    "?": r"\?",
    "[": r"\[",
    "]": r"\]",
    "j": r"\b(?:and|or|to|through|then|equals|vs)\b",  # a word that joins passages
    "w": r"\w+",  # any other word
    "s": r"\S",  # any other sign
}
_NAMES = list(_KINDS)
_TOKEN = re.compile("|".join(f"({pattern})" for pattern in _KINDS.values()), re.IGNORECASE | re.VERBOSE)

# Patterns over kinds, and over the text beside a ranking.
_CHAIN = re.compile(r"m?[phn](?:\n*>\n*m?[phn])+(?:\n*>\n*c?\Z)?")
# What may join a chain to more of it: a sign or a passage. A sign at the start of a paragraph only marks a quotation.
_JOINED_LEFT = re.compile(r"(?!^)(?<!\n\n)(?<!:\n)(?<!:)>\Z|[phnl]\]?[,js]*\Z")
_JOINED_RIGHT = re.compile(r"\n*>|\]?[,js]*[phnlc]")
_END = re.compile(r"\]?(?:[\n.]|\Z)")
_NOT_MEANT = re.compile(
    r"\b(?:e\.g|example|for instance|such as|format (?:is|should be|must be))\b[^\n]*\n?\Z"
    r"|(?:\b(?:not|cannot|unable|instead of|rather than|whether)|n't)\b[^.:\n]*\Z",
    re.IGNORECASE,
)

_NUMBERED = r"m[pn](?:[,.]?\n*m[pn])+(?:[,.]?\n*mc\Z)?"
_NAMED = r"\[?(?:p(?:\n+p)+|pp+|p(?:,\n?p)*)\]?"
_BARE = r"n(?:,\n?n)+|n(?:\n+n)+|l"
_LIST = re.compile(rf"(?:^|(?<=[\n:]))(?:{_NUMBERED}|{_NAMED}|{_BARE})\.?(?=\n|\Z)")
_EXPLAINED = re.compile(r"^mp", re.MULTILINE)
_RANKED = re.compile(r"(?<![a-z])(?:re-?)?(?:rank|order|sort)", re.IGNORECASE)
_SCORED = re.compile(r"\b(?:scores?|ranks)\b|\{", re.IGNORECASE)

_SAME = dict(zip(range(0xFF01, 0xFF5F), range(0x21, 0x7F), strict=True)) | {0x3010: "[", 0x3011: "]"}
_INVISIBLE = dict.fromkeys([0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF])


def _plain_text(text: str, repairs: set[str]) -> str:
    """Return the answer in `text` without fences, tags, bullets, bold, quotation marks and comments."""
    text = without_thinking(text.translate(_SAME | _INVISIBLE), repairs).replace("&gt;", ">")
    text, fences = FENCE.subn("", text)
    text, tags = re.subn(r"</?\|?[A-Za-z][\w-]*\|?>", "\n", text)
    text = re.sub(r"[*_`\"“”\\$]|(?<!\w)'|'(?!\w)", " ", text)
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(r"(?m)^ ?(?:[-•+]|#+) |^ | $", "", text)
    text, comments = re.subn(r"(?<=[\]0-9]) ?\([^()\[\]\n>]*\)", "", text)
    repairs |= {"fences removed"} if fences else set()
    repairs |= {"tags removed"} if tags else set()
    repairs |= {"prose removed"} if comments else set()
    return text.strip()


class _Reply(NamedTuple):
    """The plain text of a reply about `n` passages; `kinds` holds one character for each token."""

    text: str
    tokens: list[re.Match[str]]
    kinds: str
    n: int


class _Ranking(NamedTuple):
    """A ranking in tokens [start, end). An explained list has text between its items: `shape` is shorter than that."""

    start: int
    end: int
    shape: str  # the kinds of its own tokens
    numbers: list[int]  # its passages, best first
    marks: list[int]  # its list numbers
    complete: bool  # whether it names all passages
    begins: bool  # whether a sentence or a line begins with it
    ends: bool


def _ranking(reply: _Reply, places: Sequence[int]) -> _Ranking:
    """Return the ranking made of the tokens at `places`."""
    start, end, kinds = places[0], places[-1] + 1, reply.kinds
    numbers, marks = _numbers(reply, places, "phnl"), _numbers(reply, places, "m")
    complete = set(range(1, reply.n + 1)) <= set(numbers)
    begins, ends = start == 0 or kinds[start - 1] in "\n:.[", _END.match(kinds, end) is not None
    return _Ranking(start, end, "".join(kinds[at] for at in places), numbers, marks, complete, begins, ends)


def _numbers(reply: _Reply, places: Sequence[int], kinds: str) -> list[int]:
    # No passage has a number of ten digits, and Python refuses to read one of some thousands.
    tokens = [reply.tokens[at][0] for at in places if reply.kinds[at] in kinds]
    return [int(run) if len(run) < 10 else reply.n + 1 for token in tokens for run in re.findall("[0-9]+", token)]


def _ranked_numbers(text: str, n: int, repairs: set[str]) -> list[int]:
    """Return the numbers of the one ranking in the plain `text`, best first. Raises Unsound."""
    tokens = list(_TOKEN.finditer(text))
    kinds = "".join(_NAMES[token.lastindex - 1] for token in tokens if token.lastindex)
    reply = _Reply(text, tokens, kinds, n)
    found = _find_chain(reply) or _find_list(reply)
    shape, numbers, cut = found.shape, found.numbers, _last_may_be_cut(reply, found)
    has_prose = re.search("[a-z?]", kinds[: found.start] + kinds[found.end :]) or len(shape) < found.end - found.start
    repairs |= {"cut-off end dropped"} if cut or shape[-1] in ">c" else set()
    repairs |= {"brackets repaired"} if "h" in shape or {"n", "p"} <= set(shape) else set()
    repairs |= {"prose removed"} if has_prose else set()
    return numbers[:-1] if cut else numbers


def _last_may_be_cut(reply: _Reply, found: _Ranking) -> bool:
    """Return whether the last number may be the start of a longer one, or the number of the next list item."""
    last, at_end = found.shape[-1], found.end == len(reply.tokens)
    if last == "n" and "p" in found.shape:
        return at_end or "m" in found.shape
    if not at_end or last == "c" or not reply.tokens[-1][0][-1].isdigit():
        return False
    missing = set(range(1, reply.n + 1)).difference(found.numbers)
    return any(str(number).startswith(str(found.numbers[-1])) for number in missing)


def _check_marks(marks: list[int]) -> None:
    """Raise Unsound unless a list counts 1, 2, 3: one that counts down has its best passage last."""
    if len(marks) > 1 and marks != list(range(1, len(marks) + 1)):
        raise Unsound("its list is not numbered from 1 on")


def _find_chain(reply: _Reply) -> _Ranking | None:
    """Return the longest ranking written with signs, such as "[2] > [1]"; None without one. The others must agree."""
    chains = [_ranking(reply, range(*match.span())) for match in _CHAIN.finditer(reply.kinds)]
    chains = [chain for chain in chains if _is_meant(reply, chain) and not _is_comparison(reply, chain)]
    for chain in chains:
        _check_marks(chain.marks)
    if not chains:
        return None
    longest = max(chains, key=lambda chain: len(set(chain.numbers)))
    _check_chain(reply, longest)
    place = {number: at for at, number in enumerate(dict.fromkeys(longest.numbers))}
    for chain in chains:
        places = [place.get(number, -1) for number in dict.fromkeys(chain.numbers)]
        if -1 in places or places != sorted(places):
            raise Unsound("gives rankings that differ")
    return longest


def _is_meant(reply: _Reply, chain: _Ranking) -> bool:
    """Return False for an example, a denial or a question."""
    at = reply.tokens[chain.start].start()
    return not _NOT_MEANT.search(reply.text, max(0, at - 200), at) and not reply.kinds.startswith("?", chain.end)


def _is_comparison(reply: _Reply, chain: _Ranking) -> bool:
    """Return whether a chain of bare numbers may compare quantities: "as 5 > 3"."""
    whole = chain.complete or chain.shape == reply.kinds
    return not set("ph") & set(chain.shape) and (_has_loose_edge(chain) or not whole)


def _has_loose_edge(chain: _Ranking) -> bool:
    """Return whether a bare number at the edge of a chain may belong to the sentence around it."""
    first, last = chain.shape.lstrip("m")[0], chain.shape[-1]
    return (first == "n" and not chain.begins) or (last == "n" and not chain.ends)


def _check_chain(reply: _Reply, chain: _Ranking) -> None:
    """Raise Unsound where the chain may be only a part of the ranking."""
    # Joints are short: nine tokens hold any, and without a limit a long reply would take quadratic time.
    joined_left = _JOINED_LEFT.search(reply.kinds, max(0, chain.start - 9), chain.start)
    joined_right = not chain.complete and _JOINED_RIGHT.match(reply.kinds, chain.end)
    if joined_left or joined_right or _has_loose_edge(chain):
        raise Unsound("its ranking is joined to what cannot be read")
    if not chain.complete and not (chain.begins and chain.ends):
        raise Unsound("ranks some passages within a sentence")


def _find_list(reply: _Reply) -> _Ranking:
    """Return the ranking written as a list, by lines or commas. Raises Unsound without one."""
    lists = [_ranking(reply, range(*match.span())) for match in _LIST.finditer(reply.kinds)]
    lists = [one for one in lists if reply.n == 1 or one.shape.strip("[].") != "p"]
    items = [match.start() for match in _EXPLAINED.finditer(reply.kinds)]
    if not lists and len(items) > 1:
        lists = [_ranking(reply, [place for at in items for place in (at, at + 1)])]
    if not lists:
        raise Unsound("holds no ranking")
    if any(other.numbers != lists[0].numbers for other in lists):
        raise Unsound("gives rankings that differ")
    _check_list(reply, lists[0])
    return lists[0]


def _check_list(reply: _Reply, found: _Ranking) -> None:
    """Raise Unsound where nothing says that the list is a ranking."""
    shape, numbers, marks, length = found.shape, found.numbers, found.marks, found.end - found.start
    _check_marks(marks)
    # Bare numbers may be scores or ranks. Some passages without list numbers may be a choice, not an order.
    if set(shape) & set("nl") and sorted(numbers) != list(range(1, reply.n + 1)):
        raise Unsound(f"its bare numbers are no permutation of 1 to {reply.n}")
    if not marks and not found.complete:
        raise Unsound("lists only some passages, with neither signs nor numbers that say an order")
    lead = reply.text[: reply.tokens[found.start].start()].strip()
    if lead and (_SCORED.search(lead) or not _RANKED.search(lead.rpartition("\n")[2])):
        raise Unsound("holds a list that nothing says is a ranking")
    # Passages in the order shown, with text, may only repeat the prompt.
    explained, alone = len(shape) < length, len(reply.kinds) == length
    if numbers == sorted(numbers) and (explained or not (marks or alone)):
        raise Unsound("lists the passages in the order shown, with text")
