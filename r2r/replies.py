"""How a model's reply is read: strictly, since an order guessed from a broken reply looks like a ranking.

Owns what a free listwise reply says, and the JSON and the texts that replies hold; mends what leaves no doubt, and
names what it mended. Does not know the formats that teacher and student are asked for: those are in `teacher.parse` and
`student.prompt`.

    parse_order("1. [3]\\n2. [1]\\n3. [2]", 3).order == [3, 1, 2]
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from r2r.datasets.documents import clean


class Parsed(NamedTuple):
    """One reply, read. `status` is "ok", "repaired" or "failed"; `reason` says why it failed.

    `order` holds positions from 1, best first; `direct`, `evidence` and `comparison` are aligned with the passages as
    shown, each empty where it was not asked for; `mended` names each kind of repair once. All are empty where the reply
    failed.
    """

    status: str
    reason: str = ""
    order: list[int] = []  # noqa: RUF012 (never changed)
    direct: list[str] = []  # noqa: RUF012
    evidence: list[str] = []  # noqa: RUF012
    comparison: list[str] = []  # noqa: RUF012
    mended: list[str] = []  # noqa: RUF012


class Unsound(Exception):
    """A reply that gives no order, or not clearly."""


def parse_order(text: str, n: int) -> Parsed:
    """Read a free listwise reply about `n` passages, such as "[2] > [1]", a numbered list of passages or "2, 1"."""
    mended: set[str] = set()
    try:
        order = settle(_listed(_plain(text, mended), n, mended), n, mended)
    except Unsound as error:
        return Parsed("failed", str(error))
    empty = [""] * n
    return Parsed("repaired" if mended else "ok", "", order, empty, empty, empty, sorted(mended))


def settle(numbers: list[int], n: int, mended: set[str]) -> list[int]:
    """Return the order of all `n` passages in which `numbers` names some, best first."""
    if 0 in numbers:
        raise Unsound("names a passage 0: it may count from 0")
    named = list(dict.fromkeys(numbers))
    known = [number for number in named if number <= n]
    if 2 * len(known) < n or len(known) < min(n, 2):
        raise Unsound(f"names {len(known)} of {n} passages")
    if len(named) > 2 * len(known):
        raise Unsound(f"most of its numbers are not from 1 to {n}")
    missing = [number for number in range(1, n + 1) if number not in known]
    mended |= {"duplicate dropped"} if len(numbers) > len(named) else set()
    mended |= {"out of range dropped"} if len(named) > len(known) else set()
    mended |= {"missing appended"} if missing else set()
    return known + missing


_THINKING = re.compile(r"[<\[◁]\s?(/?)\s?(?:think|thinking|thought|reasoning)\s?[>\]▷]", re.IGNORECASE)


def answer(text: str, mended: set[str]) -> str:
    """Return what stands outside of `<think>…</think>`."""
    kept, start, thinking = "", 0, False
    for tag in _THINKING.finditer(text):
        mended.add("thinking removed")
        if not tag[1]:
            kept += "" if thinking else text[start : tag.start()] + "\n"
            thinking = True
            continue
        if not thinking:
            # Many a chat template writes the opening tag itself: the reply begins within the thinking.
            kept = ""
        start, thinking = tag.end(), False
    if thinking:
        raise Unsound("its thinking never ends")
    return kept + text[start:]


# JSON in a reply


def only_object(text: str, mended: set[str]) -> dict:
    """Return the one JSON object in `text`. The same object twice is one."""
    found, around, at = [], "", 0
    while (start := text.find("{", at)) >= 0:
        try:
            reply, end = DECODER.raw_decode(text, start)
        except RecursionError:
            raise Unsound("not JSON: nested too deep") from None
        except ValueError as error:
            raise Unsound(f"not JSON: {str(error).partition(':')[0]}") from None
        found.append(reply)
        around, at = around + text[at:start], end
    if not found:
        raise Unsound("not JSON: holds no object")
    if any(reply != found[0] for reply in found):
        raise Unsound("holds several JSON objects")
    around, fences = _FENCE.subn("", around + text[at:])
    mended |= {"fences removed"} if fences else set()
    mended |= {"prose removed"} if around.strip() or len(found) > 1 else set()
    return found[0]


def _unique(pairs: list[tuple]) -> dict:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError("a key stands twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


# Not strict: line ends and tabs inside a text are written as they are by many a model, and harm nothing.
DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_unique, parse_constant=_no_constant)
_FENCE = re.compile(r"```[a-z]*", re.IGNORECASE)


def texts(name: str, values: list, mended: set[str], may_be_empty: bool = False) -> list[str]:
    """Return the field `name` of all passages, as texts that can be stored."""
    if not all(isinstance(value, str) for value in values):
        raise Unsound(f"{name} is missing or no text")
    if not may_be_empty and not all(value.strip() for value in values):
        raise Unsound(f"{name} is empty")
    cleaned = [clean(value) for value in values]
    mended |= {"broken character replaced"} if any(broken for _, broken in cleaned) else set()
    return [value.strip() for value, _ in cleaned]


# The free reply. It is cut into tokens, and the kind of each is written as one character; what is a ranking, and what
# only looks like one, is then told by short patterns over those: "[2] > [1]" is "p>p", "top 5: [2] > [1]" is "wn:p>p".

_LABEL = r"(?:passage|document|doc|text)s?\ ?[#-]?\ ?"
_SIGN = r"(?:>{1,3}(?![>=])|[-\u2013\u2014]{1,3}>(?![>=])|≻|→|⇒|➔|➜)"
_KINDS = {
    # A list's own number: before a passage, or at the start of a line.
    "m": rf"(?<![\w.\[])(?:rank\ ?)?\#?\(?[0-9]+\ ?[.):](?=\ ?(?:\[\ ?(?:{_LABEL})?[0-9]|{_LABEL}\[?[0-9]))"
    r"|(?m:^)\ ?\(?[0-9]+[.)](?=\ )",
    # Numbers in one pair of brackets.
    "l": r"\[\s*[0-9]+(?:\s*,\s*[0-9]+)+\s*\]",
    # A passage.
    "p": rf"(?:\b{_LABEL})?\[\ ?(?:{_LABEL})?[0-9]+\ ?\]|\b{_LABEL}[0-9]+(?![\w%]|\.[0-9])",
    # A passage that the end of the reply cuts off.
    "c": rf"(?:\b{_LABEL})?\[\ ?(?:{_LABEL})?[0-9]*\Z|\b{_LABEL}\Z",
    # A passage that lacks a bracket.
    "h": rf"\[\ ?[0-9]+(?=\s*{_SIGN})|(?<![\w.,-])[0-9]+\ ?\]",
    # A bare number.
    "n": r"(?<![\w.%+-])[0-9]+(?![\w%]|[.:/][0-9])",
    ">": _SIGN,
    ",": "[,;、]",
    "\n": r"\n",
    ".": "[.!。]",
    ":": ":",
    "?": r"\?",
    "[": r"\[",
    "]": r"\]",
    # A word that joins passages, then any other word, then any other sign.
    "j": r"\b(?:and|or|to|through|then|equals|vs)\b",
    "w": r"\w+",
    "s": r"\S",
}
_NAMES = list(_KINDS)
_TOKEN = re.compile("|".join(f"({pattern})" for pattern in _KINDS.values()), re.IGNORECASE | re.VERBOSE)

_CHAIN = re.compile(r"m?[phn](?:\n*>\n*m?[phn])+(?:\n*>\n*c?\Z)?")
# What may stand beside a chain and leaves open whether it is all: a sign that joins it to nothing that can be read (but
# at the start of a paragraph it only quotes), or a passage that is tied to it, or merely named there.
_LOOSE_LEFT = re.compile(r"(?!^)(?<!\n\n)(?<!:\n)(?<!:)>\Z|[phnl]\]?[,js]*\Z")
_LOOSE_RIGHT = re.compile(r"\n*>|\]?[,js]*[phnlc]")
_BEGINS = re.compile(r"(?:^|[\n:.\[])\Z")
_ENDS = re.compile(r"\]?(?:[\n.]|\Z)")
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


def _plain(text: str, mended: set[str]) -> str:
    """Return the answer in `text` without what decorates it: fences, tags, bullets, bold, quotation marks, comments."""
    text = answer(text.translate(_SAME | _INVISIBLE), mended).replace("&gt;", ">")
    text, fences = _FENCE.subn("", text)
    text, tags = re.subn(r"</?\|?[A-Za-z][\w-]*\|?>", "\n", text)
    text = re.sub(r"[*_`\"“”\\$]|(?<!\w)'|'(?!\w)", " ", text)
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(r"(?m)^ ?(?:[-•+]|#+) |^ | $", "", text)
    text, comments = re.subn(r"(?<=[\]0-9]) ?\([^()\[\]\n>]*\)", "", text)
    mended |= {"fences removed"} if fences else set()
    mended |= {"tags removed"} if tags else set()
    mended |= {"prose removed"} if comments else set()
    return text.strip()


class _Ranking(NamedTuple):
    """Where a ranking stands among the tokens, the kinds of those that make it up, its numbers, and what is wrong."""

    start: int
    end: int
    shape: str
    numbers: list[int]
    fault: str = ""


def _listed(text: str, n: int, mended: set[str]) -> list[int]:
    """Return the numbers of the one ranking in the plain `text`, in its order."""
    tokens = list(_TOKEN.finditer(text))
    kinds = "".join(_NAMES[token.lastindex - 1] for token in tokens)
    start, end, shape, numbers, _ = _chain(text, tokens, kinds, n) or _list(text, tokens, kinds, n)
    if shape[-1] in ">c":
        mended.add("cut-off end dropped")
    elif _may_be_cut(shape, numbers, n, last=tokens[end - 1][0], at_end=end == len(tokens)):
        mended.add("cut-off end dropped")
        numbers = numbers[:-1]
    mended |= {"brackets mended"} if "h" in shape or {"n", "p"} <= set(shape) else set()
    around = kinds[:start] + kinds[end:]
    mended |= {"prose removed"} if re.search("[a-z?]", around) or len(shape) < end - start else set()
    return numbers


def _may_be_cut(shape: str, numbers: list[int], n: int, last: str, at_end: bool) -> bool:
    """Return whether the last number may be what is left of a longer one, or of a list's own number."""
    if shape[-1] == "n" and "p" in shape:
        return at_end or "m" in shape
    missing = set(range(1, n + 1)).difference(numbers)
    return at_end and last[-1].isdigit() and any(str(number).startswith(str(numbers[-1])) for number in missing)


def _numbers(tokens: list[re.Match], n: int) -> list[int]:
    # Of more than nine digits there is no passage, and beyond some thousands of them Python refuses to read a number.
    digits = [run for token in tokens for run in re.findall("[0-9]+", token[0])]
    return [int(run) if len(run) < 10 else n + 1 for run in digits]


def _check_marks(marks: list[re.Match], n: int) -> None:
    """Raise where a list does not count its passages up from 1: a list that counts down has the best last."""
    if _numbers(marks, n) != list(range(1, len(marks) + 1)):
        raise Unsound("its list is not numbered from 1 on")


def _chain(text: str, tokens: list[re.Match], kinds: str, n: int) -> _Ranking | None:
    """Return the ranking written with signs, such as "[2] > [1]", if there is one. Several must agree."""
    chains = []
    for match in _CHAIN.finditer(kinds):
        start, end = match.span()
        at = tokens[start].start()
        if _NOT_MEANT.search(text, max(0, at - 200), at) or kinds.startswith("?", end):
            continue
        begins, ends = _BEGINS.search(kinds, max(0, start - 9), start), _ENDS.match(kinds, end)
        parts = list(zip(tokens[start:end], match[0], strict=True))
        numbers = _numbers([token for token, kind in parts if kind in "phn"], n)
        complete = set(range(1, n + 1)) <= set(numbers)
        # A bare number at the edge may be one of the sentence, and a few of them alone a sum: "as 5 > 3".
        loose = (match[0].lstrip("m")[0] == "n" and not begins) or (match[0][-1] == "n" and not ends)
        if not set("ph") & set(match[0]) and (loose or (not complete and match[0] != kinds)):
            continue
        marks = [token for token, kind in parts if kind == "m"]
        if len(marks) > 1:
            _check_marks(marks, n)
        loose = loose or _LOOSE_LEFT.search(kinds, max(0, start - 9), start)
        fault = ""
        if loose or (_LOOSE_RIGHT.match(kinds, end) and not complete):
            fault = "its ranking is joined to what cannot be read"
        elif not complete and not (begins and ends):
            fault = "ranks some passages within a sentence"
        chains.append(_Ranking(start, end, match[0], numbers, fault))
    if not chains:
        return None
    longest = max(chains, key=lambda chain: len(set(chain.numbers)))
    if longest.fault:
        raise Unsound(longest.fault)
    place = {number: at for at, number in enumerate(dict.fromkeys(longest.numbers))}
    for chain in chains:
        places = [place.get(number, -1) for number in dict.fromkeys(chain.numbers)]
        if -1 in places or places != sorted(places):
            raise Unsound("gives rankings that differ")
    return longest


def _list(text: str, tokens: list[re.Match], kinds: str, n: int) -> _Ranking:
    """Return the ranking written as a list, one passage a line or with commas between. Raises where there is none."""
    spans = [match.span() for match in _LIST.finditer(kinds)]
    spans = [(start, end) for start, end in spans if n == 1 or kinds[start:end].strip("[].") != "p"]
    lists = []
    for start, end in spans:
        listed = [token for token, kind in zip(tokens[start:end], kinds[start:end], strict=True) if kind in "pnl"]
        lists.append(_Ranking(start, end, kinds[start:end], _numbers(listed, n)))
    heads = [match.start() for match in _EXPLAINED.finditer(kinds)]
    explained = not lists and len(heads) > 1
    if explained:
        listed = [tokens[head + 1] for head in heads]
        lists.append(_Ranking(heads[0], heads[-1] + 2, "mp" * len(heads), _numbers(listed, n)))
    if not lists:
        raise Unsound("holds no ranking")
    if any(other.numbers != lists[0].numbers for other in lists):
        raise Unsound("gives rankings that differ")

    start, end, shape, numbers, _ = lists[0]
    marks = [tokens[at] for at in (heads if explained else range(start, end)) if kinds[at] == "m"]
    _check_marks(marks, n)
    # Numbers with nothing that says passage may be scores, or ranks; some passages with nothing that says an order, a
    # choice of them.
    if set(shape) & set("nl") and sorted(numbers) != list(range(1, n + 1)):
        raise Unsound(f"its bare numbers are no permutation of 1 to {n}")
    if not marks and not set(range(1, n + 1)) <= set(numbers):
        raise Unsound("lists only some passages, with neither signs nor numbers that say an order")
    lead = text[: tokens[start].start()]
    if lead.strip() and (_SCORED.search(lead) or not _RANKED.search(lead.strip().rpartition("\n")[2])):
        raise Unsound("holds a list that nothing says is a ranking")
    # In the order shown, passages with text beside them may be what was asked, said again.
    if numbers == sorted(numbers) and (explained or (not marks and len(kinds) > end - start)):
        raise Unsound("lists the passages in the order shown, with text")
    return lists[0]
