"""What the demo's models learn from: examples made from worlds that do not ship, short and simple ones first.

Owns the formats of these examples and the order of the stages. Does not own the training (`train.py`). The student's
base learns to read (copying, same or other name, does a passage answer, which one does, what does it say) and to answer
in a chat and in JSON, and never sees the prompt or the reply that it is distilled on. The teacher goes on from there
with its own prompt and reply, those of `r2r.teacher`.

    one = lesson(tokenizer, "spot", random.Random(1), unseen_world(1))
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from functools import lru_cache
from typing import NamedTuple

from r2r.demo import truth
from r2r.demo.world import SPLITS, Entity, Passage, Query, World, grade, names
from r2r.llm.prompt import chat_ids
from r2r.student import prompt as student
from r2r.teacher import prompt as teacher

# What the base calls the grades 0 to 3.
JUDGE_WORDS = (" none", " near", " part", " full")
# Layers, of six, that are shown what to know at a place: the word that a passage goes by, whether it is about whom the
# question is about, and how well it answers.
_NAMED, _EARLY, _LATE = 3, 4, 5


class Lesson(NamedTuple):
    """`weights[i]` is how much it counts to foretell token i from those before. `marks` are (layer, place, token): what
    that layer, counted from 1, must know there, so that the layers above it have something to build on."""

    ids: list[int]
    weights: list[float]
    marks: list[tuple[int, int, int]]


class Piece(NamedTuple):
    """A part of a lesson's text: how much its tokens count, and the word that must be known at its last token in a
    layer, if any."""

    text: str
    weight: float = 0.0
    known: str = ""
    layer: int = _LATE


class Stage(NamedTuple):
    """`shares` is how often each kind of lesson comes. A stage ends after `steps`, or earlier, when the share of
    counted tokens that is foretold right reaches `goal`. `batch` is the number of lessons a worker takes at a time.
    Where `ends`, the learning rate falls to 0 in the second half, and the next stage begins with a new optimizer."""

    name: str
    shares: dict[str, float]
    steps: int
    batch: int
    goal: float = 2.0
    ends: bool = False


# The stage of the student after which the teacher goes its own way.
BRANCH = "chat"
STAGES = {
    "student": (
        Stage("copy", {"copy": 1}, 2000, 24, 0.75),
        Stage("same", {"copy": 0.1, "same": 0.9}, 2000, 16, 0.95),
        Stage("spot", {"copy": 0.1, "same": 0.2, "spot": 0.7}, 2000, 16, 0.94),
        Stage("short", {"copy": 0.05, "spot": 0.15, "judge short": 0.8}, 1000, 16, 0.96),
        Stage("look", {"copy": 0.05, "spot": 0.1, "judge short": 0.15, "look short": 0.7}, 2000, 16, 0.95),
        Stage(
            "whole",
            {"copy": 0.05, "recite": 0.05, "spot": 0.05, "judge": 0.2, "look": 0.25, "pick": 0.4},
            800,
            8,
            ends=True,
        ),
        Stage("chat", {"copy": 0.05, "judge": 0.1, "look": 0.1, "pick": 0.1, "answer": 0.65}, 800, 8, ends=True),
        Stage("list", {"copy": 0.05, "judge": 0.1, "look": 0.05, "answer": 0.2, "list": 0.6}, 500, 8, ends=True),
        Stage(
            "choose",
            {"copy": 0.05, "judge": 0.05, "list": 0.15, "pick": 0.05, "answer": 0.2, "choose": 0.5},
            400,
            8,
            ends=True,
        ),
    ),
    "teacher": (
        Stage("order", {"copy": 0.05, "look": 0.05, "teach none": 0.8, "teach both": 0.1}, 600, 8),
        Stage(
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
    """Return a world without a name of the one that ships."""
    shipped = sum(entities for entities, _ in SPLITS.values())
    return World(names()[shipped:], seed)


def shown_list(rng: random.Random, world: World, n: int) -> tuple[Query, list[Passage]]:
    """Return a query, and `n` passages such as BM25 finds for it, in random order."""
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
    """Return an attribute of an entity to ask for: often one that is asked about in a passage, and not answered there,
    since such passages are the likeliest to be taken for an answer."""
    every = range(len(entity.values))
    if rng.random() < 0.4:
        said = " ".join(passage.text for passage in (*world.about[entity.name], *world.naming[entity.name]))
        repeated = [at for at in every if any(ask.format(e=entity.name) in said for ask in entity.attribute(at).asks)]
        if repeated:
            return rng.choice(repeated)
    return rng.choice(every)


@lru_cache(maxsize=1)
def _by_word(world: World) -> dict[str, list[Passage]]:
    """Return the passages about entities that have a word in their names."""
    found = defaultdict(list)
    for passage in world.passages:
        for word in passage.subject.name.split():
            found[word].append(passage)
    return found


def lesson(tokenizer, kind: str, rng: random.Random, world: World) -> Lesson:
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


def _copy(tokenizer, rng: random.Random) -> Lesson:
    """Any tokens, and the same again. What stood before a token is what one must know to go on with a copy."""
    length = rng.randint(20, 40)
    once = [rng.randrange(3, len(tokenizer)) for _ in range(length)]
    ids = once + once
    weights = [0.0] * (length + 1) + [1.0] * (length - 1)
    return Lesson(ids, weights, [(_LATE, place, ids[place - 1]) for place in range(1, len(ids))])


def _same(tokenizer, rng: random.Random, world: World) -> Lesson:
    """A name or one word of it, and for each of many others whether it is the same."""
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
    return _lesson(tokenizer, pieces)


def _spot(tokenizer, rng: random.Random, world: World) -> Lesson:
    """A question, and for each of many sentences, with the name of whom it is about, how well it answers."""
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
    return _lesson(tokenizer, pieces)


def _about(rng: random.Random, entity, attribute: int) -> Passage:
    """Return a passage of one sentence."""
    said = entity.attribute(attribute)
    value = rng.choice(said.values)
    told = rng.choice(said.tells).format(v=value, V=value[0].upper() + value[1:])
    hint = rng.choice(said.hints)
    if rng.random() < 0.6:
        return Passage("", entity, told, {attribute: told}, {})
    return Passage("", entity, hint, {}, {attribute: hint})


def _cut(rng: random.Random, passage: Passage) -> Passage:
    """Return a passage with two of its sentences."""
    said = [*passage.told.items(), *passage.hinted.items()]
    kept = dict(rng.sample(said, min(2, len(said))))
    told = {at: text for at, text in passage.told.items() if at in kept}
    hinted = {at: text for at, text in passage.hinted.items() if at in kept}
    return passage._replace(text=" ".join(kept.values()), told=told, hinted=hinted)


def _judge(tokenizer, rng: random.Random, query: Query, passages: list[Passage]) -> Lesson:
    """A question, and how well each of some passages answers it."""
    pieces = [Piece(f"{query.text}\n\n")]
    for passage in passages:
        word = JUDGE_WORDS[grade(query, passage)]
        pieces += [*_passage(query, passage), Piece(" =", 0.0, word), Piece(word, 1.0), Piece("\n\n")]
    return _lesson(tokenizer, pieces)


def _pick(tokenizer, rng: random.Random, query: Query, passages: list[Passage]) -> Lesson:
    """A question and passages, each with a word of its own behind it or before it; then the word of the best, and for
    some of them what they say."""
    ideal = truth.ideal(query, passages)
    labels, pieces = _labelled(tokenizer, rng, query, passages)
    best = ideal.order[0]
    for place, at in enumerate([best, *rng.sample(range(len(passages)), 2)]):
        said = f"{JUDGE_WORDS[ideal.grades[at]]} {ideal.evidence[at] or '-'}\n"
        pieces += [Piece(" ("), Piece(labels[at], 0.0 if place else 4.0), Piece(")"), Piece(said, 1.0)]
    return _lesson(tokenizer, pieces)


def _look(tokenizer, rng: random.Random, query: Query, passages: list[Passage]) -> Lesson:
    """A question and passages, each with a word of its own; then how well each of them answers, in another turn."""
    labels, pieces = _labelled(tokenizer, rng, query, passages)
    for at in rng.sample(range(len(passages)), len(passages)):
        word = JUDGE_WORDS[grade(query, passages[at])]
        pieces += [Piece(f" ({labels[at]})", 0.0, labels[at], _NAMED), Piece(word, 1.0), Piece("\n")]
    return _lesson(tokenizer, pieces)


def _labelled(tokenizer, rng: random.Random, query: Query, passages: list[Passage]) -> tuple[list[str], list[Piece]]:
    """Return a word or number for each passage, and a text with a question, the passages, each with its word behind it
    or before it, and the question again."""
    labels = rng.sample(_label_words(tokenizer), len(passages))
    if rng.random() < 0.3:
        labels = [str(number) for number in range(1, len(passages) + 1)]
    listed = _passages(query, passages, labels, ("(", ")"), behind=rng.random() < 0.5)
    return labels, [Piece(f"{query.text}\n\n"), *listed, Piece(query.text)]


def _list(tokenizer, rng: random.Random, query: Query, passages: list[Passage]) -> Lesson:
    """A question and passages, each with a letter or word behind it, and a turn; then in this turn how well each of
    them answers, whom it is about, and the one before it."""
    letters = rng.random() < 0.7
    labels = _labels(tokenizer, rng, len(passages), letters)
    between = rng.choice((", ", " - ", " then ", "/")) if letters else "/"
    listed = _passages(query, passages, labels, rng.choice(_BEHIND), behind=True, subjects=True)
    pieces = [Piece(f"{query.text}\n\n"), *listed]
    turn = rng.sample(range(len(passages)), len(passages))
    pieces.append(Piece(f"{query.text}\n{between.join(labels[at] for at in turn)}\n"))
    last = said = ""
    for at in turn:
        word, label, name = JUDGE_WORDS[grade(query, passages[at])], labels[at], passages[at].subject.name
        pieces += [Piece("(", 0.0, last, _NAMED), Piece(label, 1.0)]
        pieces += [Piece(")", 0.0, label, _NAMED), Piece(f"{word}, the {name}", 1.0)]
        if last:
            pieces += [Piece(", after (", 0.0, last, _NAMED), Piece(last, 1.0)]
            pieces += [Piece(")", 0.0, last, _NAMED), Piece(said, 1.0)]
        pieces.append(Piece("\n"))
        last, said = label, word
    return _lesson(tokenizer, pieces)


# How a user begins, and what stands around a passage's word, before the passage or behind it.
_BEGINNINGS = (
    "Here are some notes about Ostrey.",
    "Read these notes; somebody has a question.",
    "The notes below come from an encyclopedia.",
    "A question, and what was found:",
)
_AROUND = (("(", ")"), ("<", ">"), ("{", "}"), ("#", ""))
_BEHIND = ((" [", "]"), (" (", ")"), (" {", "}"), (" |", "|"), ("\nNote ", ""), ("\nThis was ", "."))
_ASKED = ("Question: ", "Asked: ", "Somebody wants to know: ", "")


def _answer(tokenizer, rng: random.Random, query: Query, passages: list[Passage]) -> Lesson:
    """A chat about passages, each with a word of its own: what some of them say, in JSON and in the turn that is asked
    for, which one answers, or how two of them differ."""
    ideal = truth.ideal(query, passages)
    labels = _labels(tokenizer, rng, len(passages), letters=0.4)
    around = rng.choice(_AROUND)
    message = _shown(rng, query, passages, labels, around, behind=rng.random() < 0.7)
    named = [label.join(around) for label in labels]
    kind = rng.random()
    some = rng.sample(range(len(passages)), 2 if kind > 0.6 else rng.randint(2, min(4, len(passages))))
    notes = [{"note": labels[at], "quote": ideal.evidence[at], "about": ideal.direct[at]} for at in some]
    if kind < 0.6:
        for place, note in enumerate(notes):
            other = some[place - 1 if place else 1]
            said = f"{named[other]}, which {truth.NEIGHBOUR[ideal.grades[other]]}."
            note["turn"] = f"Before it comes {said}" if place else f"After it comes {said}"
        turn = ", ".join(note["note"] for note in notes)
        message.append(Piece(f"What do the notes say of it? List them as JSON, in this turn: {turn}"))
        return _chat(tokenizer, message, _weighed(_json(notes), "note"))
    if kind < 0.8:
        message.append(Piece("What is the answer, and which note has it? Reply in JSON."))
        best = ideal.order[0]
        found = {"quote": ideal.evidence[best], "about": ideal.direct[best], "note": labels[best]}
        return _chat(tokenizer, message, _weighed(_json(found)))
    message.append(Piece(f"How do notes {labels[some[0]]} and {labels[some[1]]} differ?"))
    differ = [Piece(f"{named[at]} {truth.NEIGHBOUR[ideal.grades[at]]}", 1.0) for at in some]
    return _chat(tokenizer, message, [differ[0], Piece(", ", 1.0), differ[1], Piece(".", 1.0)])


def _choose(tokenizer, rng: random.Random, query: Query, passages: list[Passage]) -> Lesson:
    """A chat about passages, each with a letter or a word behind it: which one answers, and what it says; or in one
    word, a passage of whatever grade is asked for."""
    ideal = truth.ideal(query, passages)
    kind = rng.random()
    labels = _labels(tokenizer, rng, len(passages), letters=0.7 if kind < 0.7 else 0.0)
    message = _shown(rng, query, passages, labels, rng.choice(_BEHIND), behind=True)
    best = ideal.order[0]
    about, label = ideal.direct[best], Piece(labels[best], 4.0)
    if kind < 0.35:
        message.append(Piece("Which of them answers it best? Say why."))
        return _chat(tokenizer, message, [Piece("It is ", 0.1), label, Piece(f". {about}", 1.0)])
    if kind < 0.7:
        message.append(Piece("Which of them answers it best? Reply in JSON."))
        return _chat(tokenizer, message, [Piece('{"best":"', 0.1), label, Piece(f'","about":"{about}"}}', 1.0)])
    # Any passage may be asked for: a base that does not understand the question has no reason to name the best.
    asked_for = rng.choice(ideal.grades)
    message.append(Piece(f"Which of them {truth.NEIGHBOUR[asked_for]}? One word."))
    return _chat(tokenizer, message, [Piece(labels[ideal.grades.index(asked_for)], 4.0)])


def _labels(tokenizer, rng: random.Random, n: int, letters: float) -> list[str]:
    """Return `n` words, or as often as `letters` says, letters."""
    return rng.sample(student.LABELS if rng.random() < letters else _label_words(tokenizer), n)


def _shown(rng: random.Random, query: Query, passages: list[Passage], labels: list[str], around, behind) -> list[Piece]:
    """Return a user's message up to what is asked of the passages, with a judgement known where each of them ends."""
    asked = f"{rng.choice(_ASKED)}{query.text}"
    beginning = Piece(f"{rng.choice(_BEGINNINGS)}\n\n{asked}\n\n")
    return [beginning, *_passages(query, passages, labels, around, behind), Piece(f"{asked}\n\n")]


def _passages(query: Query, passages: list[Passage], labels, around, behind, subjects=False) -> list[Piece]:
    """Return passages with their labels, `around` which something stands, before them or behind them."""
    pieces = []
    for passage, label in zip(passages, labels, strict=True):
        name = label.join(around)
        before, after = ("", name if name[0].isspace() else f" {name}") if behind else (f"{name} ", "")
        pieces += [Piece(before), *_passage(query, passage), *_end(query, passage, label, after, subjects)]
    return pieces


def _recite(tokenizer, rng: random.Random, world: World) -> Lesson:
    """Passages of the encyclopedia as they stand."""
    return _lesson(tokenizer, [Piece(f"{passage.shown}\n\n", 0.3) for passage in rng.sample(world.passages, 6)])


@lru_cache(maxsize=1)
def _label_words(tokenizer) -> list[str]:
    """Return words that are one token alone; the student's own labels are not among them."""
    words = [tokenizer.decode([token]) for token in range(3, len(tokenizer))]
    return [
        word
        for word in words
        if word.isascii() and word.isalnum() and word not in student.LABELS and len(tokenizer.encode(word)) == 1
    ]


def _same_word(same: bool) -> str:
    return JUDGE_WORDS[3 if same else 0]


def _passage(query: Query, passage: Passage) -> list[Piece]:
    """Return a passage's title, at which it must be known whether it is about the query's entity, and its text."""
    same = passage.subject.name == query.entity.name
    return [Piece(passage.subject.name, 0.0, _same_word(same), _EARLY), Piece(f"\n{passage.text}")]


def _end(query: Query, passage: Passage, label: str, after: str = "", subject: bool = False) -> list[Piece]:
    """Return what stands behind a passage. From there on it must be known how well the passage answers, and which word
    it goes by: whoever looks for the word finds the judgement, and with `subject` the name of whom it is about."""
    word = JUDGE_WORDS[grade(query, passage)]
    places = [text for text in (after, "\n", "\n") if text]
    pieces = [piece for text in places for piece in (Piece(text, 0.0, word), Piece("", 0.0, label, _NAMED))]
    return [*pieces, Piece("", 0.0, f" {passage.subject.name}", _EARLY)] if subject else pieces


def _lesson(tokenizer, pieces: list[Piece]) -> Lesson:
    encoded = tokenizer("".join(piece.text for piece in pieces), return_offsets_mapping=True, split_special_tokens=True)
    spans = encoded["offset_mapping"]
    weights, marks, place, start = [0.0] * len(spans), [], 0, 0
    for text, weight, known, layer in pieces:
        end = start + len(text)
        # A token that two pieces share counts as the weightier of them.
        while place > 0 and spans[place - 1][1] > start:
            place -= 1
        while place < len(spans) and spans[place][0] < end:
            weights[place] = max(weights[place], weight)
            place += 1
        if known:
            marks.append((layer, place - 1, tokenizer.encode(known)[0]))
        start = end
    # Nothing stands before the first token from which to foretell it.
    weights[0] = 0.0
    return Lesson(encoded["input_ids"], weights, marks)


def teacher_example(
    query: Query, passages: list[Passage], reasoning: str, order: list[int] | None = None
) -> tuple[str, str]:
    """Return the teacher's message and its ideal reply, or one that is right about passages in another order."""
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


def _json(content) -> str:
    """Return JSON without spaces, as vLLM writes it where white space is not left to the model."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def student_example(query: Query, passages: list[Passage]) -> tuple[str, str]:
    """Return the student's message and an ideal reply: for the tokenizer's training and for no other."""
    ideal = truth.ideal(query, passages)
    labels = [student.LABELS[at] for at in ideal.order]
    reasons = [
        {"evidence": ideal.evidence[at], "direct": ideal.direct[at], "comparison": f"It stands below [{labels[0]}]."}
        for at in ideal.order
    ]
    message = student.prompt(query.text, [passage.shown for passage in passages])
    return message, student.reply(labels, reasons, "both")


def _teach(tokenizer, rng: random.Random, world: World, reasoning: str) -> Lesson:
    """The teacher's prompt and its reply, as `annotate` has them."""
    query, passages = shown_list(rng, world, 8 if rng.random() < 0.7 else rng.randint(3, 7))
    # A model that only ever saw true orders reads a passage's grade from its rank; here the order counts nothing.
    mixed = reasoning != "none" and rng.random() < 0.3
    order = rng.sample(range(len(passages)), len(passages)) if mixed else None
    message, reply = teacher_example(query, passages, reasoning, order)
    return _chat(tokenizer, _marked(message, query, passages), _weighed(reply, "identifier", 0.0 if mixed else 4.0))


def _chat(tokenizer, message: list[Piece], reply: list[Piece]) -> Lesson:
    """A user's message and the reply to it, in the tokenizer's chat format."""
    prompt = chat_ids(tokenizer, "".join(piece.text for piece in message))
    shown, written = _lesson(tokenizer, message), _lesson(tokenizer, reply)
    shift = next(at for at in range(len(prompt)) if prompt[at : at + len(shown.ids)] == shown.ids)
    # Its first token is foretold by the chat's last one.
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


def _marked(message: str, query: Query, passages: list[Passage]) -> list[Piece]:
    """Return a message in pieces, with what must be known at each passage's end."""
    pieces = []
    for number, passage in enumerate(passages, start=1):
        before, _, message = message.partition(passage.shown + "\n\n")
        pieces += [Piece(before), *_passage(query, passage), *_end(query, passage, str(number))]
    return [*pieces, Piece(message)]


def _weighed(reply: str, name: str = "", number: float = 4.0) -> list[Piece]:
    """Return a reply in pieces: each `number` counts most, then what the reasons say, and the form of it hardly. Where
    a text begins, it must be known which passage it is about: `name` is the key that says so."""
    pieces, rest, about = [], reply, ""
    while (start := rest.find('":')) >= 0:
        key = rest[:start].rpartition('"')[2]
        pieces += [Piece(rest[:start], 0.05, about, _NAMED), Piece('":', 0.05, about, _NAMED)]
        rest = rest[start + 2 :]
        if rest[0] == "[":
            continue
        end = rest.index('"', 1) + 1 if rest[0] == '"' else next(at for at, one in enumerate(rest) if not one.isdigit())
        pieces.append(Piece(rest[:end], 1.0 if rest[0] == '"' else number))
        about = rest[:end].strip('"') if key == name else about
        rest = rest[end:]
    return [*pieces, Piece(rest, 0.05)]
