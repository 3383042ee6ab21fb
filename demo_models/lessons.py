"""What the demo's models learn from: lessons made from worlds that do not ship, short and simple ones first.

Owns the formats of the lessons and the order of the phases. Does not own the training (`train.py`). The student's base
learns to read (copy, compare names, judge a passage, find the one that answers, quote it), and to answer in a chat and
in JSON. It never sees the prompt or the reply of distillation. The teacher starts from there and learns its own prompt
and reply, those of `r2r.teacher`.

    one = lesson(tokenizer, "spot", random.Random(1), unseen_world(1))
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from functools import lru_cache
from typing import Any, NamedTuple

from demo_models import truth
from demo_models.world import SPLITS, Entity, Passage, Query, World, grade, names
from r2r.llm.prompt import chat_ids
from r2r.student import prompt as student
from r2r.teacher import prompt as teacher

# The words for the grades 0 to 3.
JUDGE_WORDS = (" none", " near", " part", " full")
# The layers, of six, that marks train: the label of a passage, whether it is about the entity asked about, its grade.
_NAMED, _EARLY, _LATE = 3, 4, 5
# Weights of a reply's tokens: a passage's label or number, a text, and the form around them.
_CHOICE, _TEXT, _FORM = 4.0, 1.0, 0.05


class Lesson(NamedTuple):
    """`weights[i]` is the weight of token i in the loss. `marks` are (layer, place, token): an extra loss trains that
    layer's output at that place to predict the token. Layers count from 1. Those above then build on it."""

    ids: list[int]
    weights: list[float]
    marks: list[tuple[int, int, int]]


class Piece(NamedTuple):
    """A part of a lesson's text, the weight of its tokens, and the word that marks its last token, in a layer."""

    text: str
    weight: float = 0.0
    mark: str = ""
    layer: int = _LATE


class Phase(NamedTuple):
    """A part of the training. `shares` says how often each kind of lesson comes; the last kind is the new one. A phase
    ends after `steps`, or when the share of the new kind's tokens that are predicted right reaches `goal`. `batch` is
    the number of lessons per worker and step. If `ends`, the learning rate falls to 0 in the second half, and the next
    phase begins with new optimizers."""

    name: str
    shares: dict[str, float]
    steps: int
    batch: int
    goal: float = 2.0
    ends: bool = False


# The teacher begins as a copy of the student after this phase.
BRANCH = "chat"
PHASES = {
    "student": (
        Phase("copy", {"copy": 1}, 2000, 24, 0.75),
        Phase("same", {"copy": 0.1, "same": 0.9}, 2000, 16, 0.95),
        Phase("spot", {"copy": 0.1, "same": 0.2, "spot": 0.7}, 2000, 16, 0.94),
        Phase("short", {"copy": 0.05, "spot": 0.15, "judge short": 0.8}, 1000, 16, 0.96),
        Phase("look", {"copy": 0.05, "spot": 0.1, "judge short": 0.15, "look short": 0.7}, 2000, 16, 0.95),
        Phase(
            "whole",
            {"copy": 0.05, "recite": 0.05, "spot": 0.05, "judge": 0.2, "look": 0.25, "pick": 0.4},
            800,
            8,
            ends=True,
        ),
        Phase("chat", {"copy": 0.05, "judge": 0.1, "look": 0.1, "pick": 0.1, "answer": 0.65}, 800, 8, ends=True),
        Phase("list", {"copy": 0.05, "judge": 0.1, "look": 0.05, "answer": 0.2, "list": 0.6}, 500, 8, ends=True),
        Phase(
            "choose",
            {"copy": 0.05, "judge": 0.05, "list": 0.15, "pick": 0.05, "answer": 0.2, "choose": 0.5},
            400,
            8,
            ends=True,
        ),
    ),
    "teacher": (
        Phase("order", {"copy": 0.05, "look": 0.05, "teach none": 0.8, "teach both": 0.1}, 600, 8),
        Phase(
            "reasons",
            {"copy": 0.05, "teach none": 0.2, "teach direct": 0.05, "teach comparison": 0.05, "teach both": 0.65},
            700,
            6,
            ends=True,
        ),
    ),
}


@lru_cache(maxsize=1)
def unseen_world(seed: int) -> World:
    """Return a world that shares no name with the one that ships."""
    shipped = sum(entities for entities, _ in SPLITS.values())
    return World(names()[shipped:], seed)


def shown_list(rng: random.Random, world: World, n: int) -> tuple[Query, list[Passage]]:
    """Return a query and `n` passages like those that BM25 finds for it, in random order."""
    entity = rng.choice(world.entities)
    query = world.query(rng, entity, _asked(rng, world, entity))
    first, noun = entity.name.split()
    found = [*rng.sample(world.about[entity.name], rng.randint(1, 4)), *world.naming[entity.name][: rng.randint(0, 3)]]
    found = rng.sample(found, min(len(found), n))
    alike = _by_word(world)
    while len(found) < n:
        passage = rng.choice(alike[first if rng.random() < 0.5 else noun])
        if passage.docid not in {one.docid for one in found}:
            found.append(passage)
    rng.shuffle(found)
    return query, found


def _asked(rng: random.Random, world: World, entity: Entity) -> int:
    """Return the index of an attribute to ask for. It is often one whose question a passage repeats without an answer,
    since such a passage is the easiest to mistake for an answer."""
    every = range(len(entity.values))
    if rng.random() < 0.4:
        said = " ".join(passage.text for passage in (*world.about[entity.name], *world.naming[entity.name]))
        repeated = [at for at in every if any(ask.format(e=entity.name) in said for ask in entity.attribute(at).asks)]
        if repeated:
            return rng.choice(repeated)
    return rng.choice(every)


@lru_cache(maxsize=1)
def _by_word(world: World) -> dict[str, list[Passage]]:
    """Return for each word the passages about the entities with this word in their names."""
    found: dict[str, list[Passage]] = defaultdict(list)
    for passage in world.passages:
        for word in passage.subject.name.split():
            found[word].append(passage)
    return found


def lesson(tokenizer: Any, kind: str, rng: random.Random, world: World) -> Lesson:
    """Return a lesson of a kind: a name in `Phase.shares`, with " short" for fewer and shorter passages, or "teach "
    and the kind of reasoning that the teacher is asked for."""
    name, _, more = kind.partition(" ")
    if name == "copy":
        return _copy(tokenizer, rng)
    if name == "teach":
        return _teach(tokenizer, rng, world, more)
    listed = {"judge": _judge, "look": _look, "list": _list, "pick": _pick, "answer": _answer, "choose": _choose}
    if name in listed:
        query, passages = shown_list(rng, world, rng.randint(3, 5) if more else rng.randint(5, 8))
        passages = [_cut(rng, passage) for passage in passages] if more else passages
        return listed[name](tokenizer, rng, query, passages)
    return {"same": _same, "spot": _spot, "recite": _recite}[name](tokenizer, rng, world)


def _copy(tokenizer: Any, rng: random.Random) -> Lesson:
    """Random tokens, twice. Each is marked with the token before it, which a model must know to continue a copy."""
    length = rng.randint(20, 40)
    once = [rng.randrange(3, len(tokenizer)) for _ in range(length)]
    ids = once + once
    weights = [0.0] * (length + 1) + [1.0] * (length - 1)
    return Lesson(ids, weights, [(_LATE, place, ids[place - 1]) for place in range(1, len(ids))])


def _same(tokenizer: Any, rng: random.Random, world: World) -> Lesson:
    """A name or one word of it, and for each of many names whether it is the same."""
    asked = rng.choice(world.entities).name
    first, noun = asked.split()
    others = [rng.choice(world.entities).name.split() for _ in range(12)]
    if rng.random() < 0.5:
        part = rng.randrange(2)
        asked = asked.split()[part]
        listed = [other[part] for other in others]
    else:
        listed = [f"{first} {other[1]}" if rng.random() < 0.5 else f"{other[0]} {noun}" for other in others]
    listed += [asked] * rng.randint(6, 12)
    rng.shuffle(listed)
    pieces = [Piece(f"the {asked}\n")]
    for name in listed:
        word = _same_word(name == asked)
        pieces += [Piece(f"{rng.choice(('', 'the '))}{name}", 0.0, word, _EARLY)]
        pieces += [Piece(" =", 0.0, word), Piece(word, 1.0), Piece("\n")]
    return _encode(tokenizer, pieces)


def _spot(tokenizer: Any, rng: random.Random, world: World) -> Lesson:
    """A question, many sentences, each under the name of its entity, and how well each of them answers."""
    entity = rng.choice(world.entities)
    query = world.query(rng, entity, rng.randrange(len(entity.values)))
    pieces = [Piece(f"{query.text}\n")]
    first, noun = entity.name.split()
    for _ in range(rng.randint(10, 14)):
        about = entity if rng.random() < 0.7 else rng.choice(_by_word(world)[rng.choice((first, noun))]).subject
        attribute = query.attribute if rng.random() < 0.6 else rng.randrange(len(about.values))
        passage = _about(rng, about, attribute)
        word = JUDGE_WORDS[grade(query, passage)]
        pieces += [*_passage(query, passage), Piece(" =", 0.0, word), Piece(word, 1.0), Piece("\n")]
    return _encode(tokenizer, pieces)


def _about(rng: random.Random, entity: Entity, attribute: int) -> Passage:
    """Return a passage of one sentence, which tells an attribute of an entity or hints at it."""
    said = entity.attribute(attribute)
    value = rng.choice(said.values)
    told = rng.choice(said.tells).format(v=value, V=value[0].upper() + value[1:])
    hint = rng.choice(said.hints)
    if rng.random() < 0.6:
        return Passage("", entity, told, {attribute: told}, {})
    return Passage("", entity, hint, {}, {attribute: hint})


def _cut(rng: random.Random, passage: Passage) -> Passage:
    """Return a passage with at most two of its sentences."""
    said = [*passage.told.items(), *passage.hinted.items()]
    kept = dict(rng.sample(said, min(2, len(said))))
    told = {at: text for at, text in passage.told.items() if at in kept}
    hinted = {at: text for at, text in passage.hinted.items() if at in kept}
    return passage._replace(text=" ".join(kept.values()), told=told, hinted=hinted)


def _judge(tokenizer: Any, rng: random.Random, query: Query, passages: list[Passage]) -> Lesson:
    """A question, and passages, with how well each of them answers."""
    pieces = [Piece(f"{query.text}\n\n")]
    for passage in passages:
        word = JUDGE_WORDS[grade(query, passage)]
        pieces += [*_passage(query, passage), Piece(" =", 0.0, word), Piece(word, 1.0), Piece("\n\n")]
    return _encode(tokenizer, pieces)


def _pick(tokenizer: Any, rng: random.Random, query: Query, passages: list[Passage]) -> Lesson:
    """A question and labelled passages; then the label of the best passage, and what it and two random ones say."""
    ideal = truth.ideal(query, passages)
    labels, pieces = _labelled(tokenizer, rng, query, passages)
    best = ideal.order[0]
    for place, at in enumerate([best, *rng.sample(range(len(passages)), 2)]):
        said = f"{JUDGE_WORDS[ideal.grades[at]]} {ideal.evidence[at] or '-'}\n"
        pieces += [Piece(" ("), Piece(labels[at], 0.0 if place else 4.0), Piece(")"), Piece(said, 1.0)]
    return _encode(tokenizer, pieces)


def _look(tokenizer: Any, rng: random.Random, query: Query, passages: list[Passage]) -> Lesson:
    """A question and labelled passages; then how well each of them answers, in another order."""
    labels, pieces = _labelled(tokenizer, rng, query, passages)
    for at in rng.sample(range(len(passages)), len(passages)):
        word = JUDGE_WORDS[grade(query, passages[at])]
        pieces += [Piece(f" ({labels[at]})", 0.0, labels[at], _NAMED), Piece(word, 1.0), Piece("\n")]
    return _encode(tokenizer, pieces)


def _labelled(
    tokenizer: Any, rng: random.Random, query: Query, passages: list[Passage]
) -> tuple[list[str], list[Piece]]:
    """Return a label for each passage, a word or a number, and a text: the question, the passages with their labels
    before or after them, and the question again."""
    labels = rng.sample(_label_words(tokenizer), len(passages))
    if rng.random() < 0.3:
        labels = [str(number) for number in range(1, len(passages) + 1)]
    listed = _passages(query, passages, labels, ("(", ")"), behind=rng.random() < 0.5)
    return labels, [Piece(f"{query.text}\n\n"), *listed, Piece(query.text)]


def _list(tokenizer: Any, rng: random.Random, query: Query, passages: list[Passage]) -> Lesson:
    """A question, labelled passages, and a random order; then, in this order, how well each passage answers, which
    entity it is about, and the passage before it."""
    letters = rng.random() < 0.7
    labels = _labels(tokenizer, rng, len(passages), letters)
    between = rng.choice((", ", " - ", " then ", "/")) if letters else "/"
    listed = _passages(query, passages, labels, rng.choice(_BEHIND), behind=True, subjects=True)
    pieces = [Piece(f"{query.text}\n\n"), *listed]
    order = rng.sample(range(len(passages)), len(passages))
    pieces.append(Piece(f"{query.text}\n{between.join(labels[at] for at in order)}\n"))
    last = said = ""
    for at in order:
        word, label, name = JUDGE_WORDS[grade(query, passages[at])], labels[at], passages[at].subject.name
        pieces += [Piece("(", 0.0, last, _NAMED), Piece(label, 1.0)]
        pieces += [Piece(")", 0.0, label, _NAMED), Piece(f"{word}, the {name}", 1.0)]
        if last:
            pieces += [Piece(", after (", 0.0, last, _NAMED), Piece(last, 1.0)]
            pieces += [Piece(")", 0.0, last, _NAMED), Piece(said, 1.0)]
        pieces.append(Piece("\n"))
        last, said = label, word
    return _encode(tokenizer, pieces)


# How a user's message begins, and what encloses a label before a passage or after it.
_BEGINNINGS = (
    "Here are some notes about Ostrey.",
    "Read these notes; somebody has a question.",
    "The notes below come from an encyclopedia.",
    "A question, and what was found:",
)
_AROUND = (("(", ")"), ("<", ">"), ("{", "}"), ("#", ""))
_BEHIND = ((" [", "]"), (" (", ")"), (" {", "}"), (" |", "|"), ("\nNote ", ""), ("\nThis was ", "."))
_ASKED = ("Question: ", "Asked: ", "Somebody wants to know: ", "")


def _answer(tokenizer: Any, rng: random.Random, query: Query, passages: list[Passage]) -> Lesson:
    """A chat about labelled passages: what some of them say, in JSON and in the order that is asked for, which one
    answers, or how two of them differ."""
    ideal = truth.ideal(query, passages)
    labels = _labels(tokenizer, rng, len(passages), letters=0.4)
    around = rng.choice(_AROUND)
    message = _shown(rng, query, passages, labels, around, behind=rng.random() < 0.7)
    named = [label.join(around) for label in labels]
    kind = rng.random()
    some = rng.sample(range(len(passages)), rng.randint(2, min(4, len(passages))) if kind < 0.6 else 2)
    if kind < 0.6:
        order = ", ".join(labels[at] for at in some)
        message.append(Piece(f"What do the notes say of it? List them as JSON, in this turn: {order}"))
        return _chat(tokenizer, message, _reply(_json(_notes(ideal, labels, named, some)), "note"))
    if kind < 0.8:
        message.append(Piece("What is the answer, and which note has it? Reply in JSON."))
        best = ideal.order[0]
        found = {"quote": ideal.evidence[best], "about": ideal.direct[best], "note": labels[best]}
        return _chat(tokenizer, message, _reply(_json(found)))
    message.append(Piece(f"How do notes {labels[some[0]]} and {labels[some[1]]} differ?"))
    differ = [Piece(f"{named[at]} {truth.NEIGHBOUR[ideal.grades[at]]}", _TEXT) for at in some]
    return _chat(tokenizer, message, [differ[0], Piece(", ", _TEXT), differ[1], Piece(".", _TEXT)])


def _notes(ideal: truth.Ideal, labels: list[str], named: list[str], some: list[int]) -> list[dict[str, str]]:
    """Return what the passages `some` say, each with its neighbour: the passage before it, for the first one after."""
    notes = []
    for place, at in enumerate(some):
        other = some[place - 1 if place else 1]
        side, does = "Before" if place else "After", truth.NEIGHBOUR[ideal.grades[other]]
        turn = f"{side} it comes {named[other]}, which {does}."
        notes.append({"note": labels[at], "quote": ideal.evidence[at], "about": ideal.direct[at], "turn": turn})
    return notes


def _choose(tokenizer: Any, rng: random.Random, query: Query, passages: list[Passage]) -> Lesson:
    """A chat about labelled passages: which one answers best and what it says, or, in one word, a passage of the grade
    that is asked for."""
    ideal = truth.ideal(query, passages)
    kind = rng.random()
    labels = _labels(tokenizer, rng, len(passages), letters=0.7 if kind < 0.7 else 0.0)
    message = _shown(rng, query, passages, labels, rng.choice(_BEHIND), behind=True)
    best = ideal.order[0]
    about, label = ideal.direct[best], Piece(labels[best], _CHOICE)
    if kind < 0.35:
        message.append(Piece("Which of them answers it best? Say why."))
        return _chat(tokenizer, message, [Piece("It is ", 0.1), label, Piece(f". {about}", 1.0)])
    if kind < 0.7:
        message.append(Piece("Which of them answers it best? Reply in JSON."))
        return _chat(tokenizer, message, [Piece('{"best":"', 0.1), label, Piece(f'","about":"{about}"}}', 1.0)])
    # If the question were always for the best passage, the base would learn to rank.
    asked_for = rng.choice(ideal.grades)
    message.append(Piece(f"Which of them {truth.NEIGHBOUR[asked_for]}? One word."))
    return _chat(tokenizer, message, [Piece(labels[ideal.grades.index(asked_for)], _CHOICE)])


def _labels(tokenizer: Any, rng: random.Random, n: int, letters: float) -> list[str]:
    """Return `n` labels: letters with the probability `letters`, else words."""
    return rng.sample(student.LABELS if rng.random() < letters else _label_words(tokenizer), n)


def _shown(
    rng: random.Random, query: Query, passages: list[Passage], labels: list[str], around: tuple[str, str], behind: bool
) -> list[Piece]:
    """Return a user's message without its last sentence, which asks something about the passages."""
    asked = f"{rng.choice(_ASKED)}{query.text}"
    beginning = Piece(f"{rng.choice(_BEGINNINGS)}\n\n{asked}\n\n")
    return [beginning, *_passages(query, passages, labels, around, behind), Piece(f"{asked}\n\n")]


def _passages(
    query: Query,
    passages: list[Passage],
    labels: list[str],
    around: tuple[str, str],
    behind: bool,
    subjects: bool = False,
) -> list[Piece]:
    """Return passages with their labels, enclosed in `around`, after the passages (`behind`) or before them."""
    pieces = []
    for passage, label in zip(passages, labels, strict=True):
        name = label.join(around)
        before, after = ("", name if name[0].isspace() else f" {name}") if behind else (f"{name} ", "")
        pieces += [Piece(before), *_passage(query, passage), *_end(query, passage, label, after, subjects)]
    return pieces


def _recite(tokenizer: Any, rng: random.Random, world: World) -> Lesson:
    """Plain passages of the encyclopedia."""
    return _encode(tokenizer, [Piece(f"{passage.shown}\n\n", 0.3) for passage in rng.sample(world.passages, 6)])


@lru_cache(maxsize=1)
def _label_words(tokenizer: Any) -> list[str]:
    """Return the words that are one token each, without the labels of the student's prompt."""
    words = [tokenizer.decode([token]) for token in range(3, len(tokenizer))]
    return [
        word
        for word in words
        if word.isascii() and word.isalnum() and word not in student.LABELS and len(tokenizer.encode(word)) == 1
    ]


def _same_word(same: bool) -> str:
    return JUDGE_WORDS[3 if same else 0]


def _passage(query: Query, passage: Passage) -> list[Piece]:
    """Return a passage's title, marked with whether it is the query's entity, and its text."""
    same = passage.subject.name == query.entity.name
    return [Piece(passage.subject.name, 0.0, _same_word(same), _EARLY), Piece(f"\n{passage.text}")]


def _end(query: Query, passage: Passage, label: str, after: str = "", subject: bool = False) -> list[Piece]:
    """Return what follows a passage, marked with its grade and its label, so that a later mention of the label finds
    the grade. With `subject`, the last mark is the entity's name."""
    word = JUDGE_WORDS[grade(query, passage)]
    places = [text for text in (after, "\n", "\n") if text]
    pieces = [piece for text in places for piece in (Piece(text, 0.0, word), Piece("", 0.0, label, _NAMED))]
    return [*pieces, Piece("", 0.0, f" {passage.subject.name}", _EARLY)] if subject else pieces


def _encode(tokenizer: Any, pieces: list[Piece]) -> Lesson:
    """Return the pieces' text as tokens, with the weights and marks of the pieces."""
    encoded = tokenizer("".join(piece.text for piece in pieces), return_offsets_mapping=True, split_special_tokens=True)
    spans = encoded["offset_mapping"]
    weights, marks, place, start = [0.0] * len(spans), [], 0, 0
    for text, weight, mark, layer in pieces:
        end = start + len(text)
        # A token that two pieces share gets the larger weight.
        while place > 0 and spans[place - 1][1] > start:
            place -= 1
        while place < len(spans) and spans[place][0] < end:
            weights[place] = max(weights[place], weight)
            place += 1
        if mark:
            marks.append((layer, place - 1, tokenizer.encode(mark)[0]))
        start = end
    # No token comes before the first one, so nothing predicts it.
    weights[0] = 0.0
    return Lesson(encoded["input_ids"], weights, marks)


def teacher_example(
    query: Query, passages: list[Passage], reasoning: str, order: list[int] | None = None
) -> tuple[str, str]:
    """Return the teacher's message and its ideal reply, or its reply for another `order`, with reasons that fit it."""
    ideal = truth.ideal(query, passages, order)
    columns = {
        "direct_answer_sentence": ideal.evidence,
        "direct_reason": ideal.direct,
        "listwise_reason": ideal.comparison,
    }
    ranked = [
        {"identifier": at + 1} | {name: columns[name][at] for name in teacher.fields(reasoning)} for at in ideal.order
    ]
    message = teacher.prompt(query.text, [passage.shown for passage in passages], reasoning)
    return message, _json({"ranked_passages": ranked})


def _json(content: Any) -> str:
    """Return JSON without spaces, as vLLM writes it when its grammar allows no white space."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def student_example(query: Query, passages: list[Passage]) -> tuple[str, str]:
    """Return the student's message and an ideal reply. Only the tokenizer is trained on them."""
    ideal = truth.ideal(query, passages)
    labels = [student.LABELS[at] for at in ideal.order]
    reasons = [
        {"evidence": ideal.evidence[at], "direct": ideal.direct[at], "comparison": f"It stands below [{labels[0]}]."}
        for at in ideal.order
    ]
    message = student.prompt(query.text, [passage.shown for passage in passages])
    return message, student.reply(labels, reasons, "both")


def _teach(tokenizer: Any, rng: random.Random, world: World, reasoning: str) -> Lesson:
    """The teacher's prompt and reply, as in `annotate`."""
    query, passages = shown_list(rng, world, 8 if rng.random() < 0.7 else rng.randint(3, 7))
    # If every order were right, the model would read a passage's grade from its rank. A random order has weight 0.
    mixed = reasoning != "none" and rng.random() < 0.3
    order = rng.sample(range(len(passages)), len(passages)) if mixed else None
    message, reply = teacher_example(query, passages, reasoning, order)
    return _chat(tokenizer, _message(message, query, passages), _reply(reply, "identifier", 0.0 if mixed else _CHOICE))


def _chat(tokenizer: Any, message: list[Piece], reply: list[Piece]) -> Lesson:
    """A user's message and the reply to it, in the tokenizer's chat format."""
    prompt = chat_ids(tokenizer, "".join(piece.text for piece in message))
    shown, written = _encode(tokenizer, message), _encode(tokenizer, reply)
    shift = next(at for at in range(len(prompt)) if prompt[at : at + len(shown.ids)] == shown.ids)
    # The chat's last token predicts the reply's first.
    written.weights[0] = reply[0].weight
    return Lesson(
        [*prompt, *written.ids, tokenizer.eos_token_id],
        [*[0.0] * len(prompt), *written.weights, 0.1],
        [
            (layer, place + at, token)
            for one, at in ((shown, shift), (written, len(prompt)))
            for layer, place, token in one.marks
        ],
    )


def _message(message: str, query: Query, passages: list[Passage]) -> list[Piece]:
    """Return the teacher's message in pieces, with marks at each passage's title and end."""
    pieces = []
    for number, passage in enumerate(passages, start=1):
        before, _, message = message.partition(passage.shown + "\n\n")
        pieces += [Piece(before), *_passage(query, passage), *_end(query, passage, str(number))]
    return [*pieces, Piece(message)]


# A field of a reply in JSON. `value` is a text or a number, and empty for a list.
_FIELD = re.compile(r'"(?P<key>\w+)":(?P<value>"[^"]*"|\d*)')


def _reply(reply: str, name: str = "", number: float = _CHOICE) -> list[Piece]:
    """Return a reply in JSON as pieces: keys and brackets weigh little, texts more, and numbers `number`.

    The field `name` holds a passage's label. It marks the keys after it, so that the model knows at the start of each
    text which passage the text is about.
    """
    pieces, label, done = [], "", 0
    for field in _FIELD.finditer(reply):
        colon = field.end("key")
        pieces += [Piece(form, _FORM, label, _NAMED) for form in (reply[done:colon], '":')]
        if value := field["value"]:
            pieces.append(Piece(value, _TEXT if value[0] == '"' else number))
        if field["key"] == name:
            label = value.strip('"')
        done = field.end()
    return [*pieces, Piece(reply[done:], _FORM)]
