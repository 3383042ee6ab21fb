"""The demo's world: entities with facts, an encyclopedia about them, queries and graded judgements, all from a seed.

Owns the entities and their facts, the passages, the queries and the grades. `grammar.py` owns the wording.

    world().queries["test"][0]

The package ships it as files in BEIR's layout. To make them again:

    python -m demo_models.world r2r/demo/world
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from demo_models.grammar import DODGES, FIRST, KINDS, MENTIONS, REGIONS, Attribute

# Of the world that ships. Raise it with every change to what this module generates.
VERSION = 2
SEED = 2410
# For each split, the number of entities and of queries about each.
SPLITS = {"train": (500, 4), "dev": (50, 2), "test": (100, 2)}
# The first queries of the training split, for learning curves.
FIRST_QUERIES = (100, 200, 500, 1000, 2000)
PASSAGES = 4
# How often another passage hints at a fact, a passage mentions another entity, it then repeats a question about that
# entity, and it repeats one about its own subject instead. They decide how often BM25 is fooled.
HINTED, NAMED, ASKED, ASKED_ITSELF = 0.6, 0.5, 0.4, 0.8


class Entity(NamedTuple):
    """`values[i]` is the value of the kind's attribute i."""

    name: str
    kind: int
    values: tuple[str, ...]

    def attribute(self, index: int) -> Attribute:
        return KINDS[self.kind].attributes[index]


class Passage(NamedTuple):
    """A passage about `subject`. `told` and `hinted` map an attribute's index to the sentence that tells it or hints at
    it."""

    docid: str
    subject: Entity
    text: str
    told: dict[int, str]
    hinted: dict[int, str]

    @property
    def shown(self) -> str:
        """Return the text for the index and the models: the title, a line break and the text."""
        return f"{self.subject.name}\n{self.text}"


class Query(NamedTuple):
    """A question, `text`, about the attribute with the index `attribute` of an entity."""

    qid: str
    text: str
    entity: Entity
    attribute: int


def grade(query: Query, passage: Passage) -> int:
    """Return 3 for a full answer, 2 for a partial one, 1 for another passage about the right entity, else 0."""
    if passage.subject.name != query.entity.name:
        return 0
    return 3 if query.attribute in passage.told else 2 if query.attribute in passage.hinted else 1


class World:
    """The entities with `names`, and the passages about them."""

    def __init__(self, names: list[str], seed: int):
        self._rng = random.Random(seed)
        self.entities = [self._entity(name) for name in names]
        self._of_kind: dict[int, list[Entity]] = defaultdict(list)
        for entity in self.entities:
            self._of_kind[entity.kind].append(entity)
        # Passages by their subject, and by the entity that they only mention.
        self.about: dict[str, list[Passage]] = {}
        self.naming: dict[str, list[Passage]] = defaultdict(list)
        for entity in self.entities:
            self.about[entity.name] = self._article(entity)

    @cached_property
    def passages(self) -> list[Passage]:
        return [passage for article in self.about.values() for passage in article]

    def query(self, rng: random.Random, entity: Entity, attribute: int, qid: str = "") -> Query:
        """Return a query for an attribute of an entity, in one of its wordings."""
        return Query(qid, rng.choice(entity.attribute(attribute).asks).format(e=entity.name), entity, attribute)

    def judged(self, query: Query) -> list[tuple[Passage, int]]:
        """Return the passages that are about a query's entity or mention it, with their grades."""
        found = [*self.about[query.entity.name], *self.naming[query.entity.name]]
        return [(passage, grade(query, passage)) for passage in found]

    def _entity(self, name: str) -> Entity:
        kind = kind_of(name)
        return Entity(name, kind, tuple(self._rng.choice(one.values) for one in KINDS[kind].attributes))

    def _article(self, entity: Entity) -> list[Passage]:
        """Return the passages about an entity. One tells a fact, and mostly another one hints at it."""
        rng, attributes = self._rng, range(len(entity.values))
        places = list(range(PASSAGES))
        told: list[list[int]] = [[] for _ in places]
        hinted: list[list[int]] = [[] for _ in places]
        rng.shuffle(places)
        for at, attribute in enumerate(rng.sample(attributes, len(attributes))):
            place = places[at % PASSAGES]
            told[place].append(attribute)
            if rng.random() < HINTED:
                hinted[rng.choice([other for other in places if other != place])].append(attribute)
        return [self._passage(entity, at, told[at], hinted[at]) for at in range(PASSAGES)]

    def _passage(self, entity: Entity, number: int, told: list[int], hinted: list[int]) -> Passage:
        rng, kind = self._rng, KINDS[entity.kind]
        says = {at: _tell(rng, entity, at) for at in told}
        hints = {at: rng.choice(entity.attribute(at).hints) for at in hinted}
        sentences = [*says.values(), *hints.values()]
        rng.shuffle(sentences)
        sentences.insert(0, rng.choice(kind.intros).format(e=entity.name, r=rng.choice(REGIONS)))
        other = None
        # Passages mention other entities and repeat questions unanswered, to mislead a search that counts words.
        if rng.random() < NAMED:
            other = rng.choice([one for one in rng.sample(self._of_kind[entity.kind], 2) if one.name != entity.name])
            asked = self.query(rng, other, rng.randrange(len(other.values))).text
            sentences.append(rng.choice(MENTIONS).format(e=other.name))
            if rng.random() < ASKED:
                sentences.append(rng.choice(DODGES).format(q=asked))
        elif rng.random() < ASKED_ITSELF and (unsaid := set(range(len(entity.values))) - {*told, *hinted}):
            asked = self.query(rng, entity, rng.choice(sorted(unsaid))).text
            sentences.append(rng.choice(DODGES).format(q=asked))
        docid = f"{entity.name.lower().replace(' ', '-')}-{number + 1}"
        passage = Passage(docid, entity, " ".join(sentences), says, hints)
        if other:
            self.naming[other.name].append(passage)
        return passage


def _tell(rng: random.Random, entity: Entity, attribute: int) -> str:
    value = entity.values[attribute]
    return rng.choice(entity.attribute(attribute).tells).format(v=value, V=value[0].upper() + value[1:])


_KIND_OF = {noun: index for index, kind in enumerate(KINDS) for noun in kind.nouns}


def kind_of(name: str) -> int:
    """Return the index in `KINDS` of the kind of an entity."""
    return _KIND_OF[name.split()[1]]


def names() -> list[str]:
    """Return all possible names in a fixed order. The world that ships has the first of them."""
    every = [f"{first} {noun}" for first in FIRST for noun in _KIND_OF]
    random.Random(SEED).shuffle(every)
    return every


class Shipped(NamedTuple):
    """The world that ships and its queries by split. No entity is asked about in two splits."""

    world: World
    queries: dict[str, list[Query]]


@lru_cache(maxsize=1)
def world() -> Shipped:
    """Return the world that ships, always the same one."""
    wanted = sum(entities for entities, _ in SPLITS.values())
    shipped = World(names()[:wanted], SEED)
    rng, queries, start = random.Random(SEED + 1), {}, 0
    for split, (count, each) in SPLITS.items():
        asked = [
            (entity, attribute)
            for entity in shipped.entities[start : start + count]
            for attribute in rng.sample(range(len(entity.values)), each)
        ]
        rng.shuffle(asked)
        queries[split] = [
            shipped.query(rng, entity, attribute, f"{split}{number:04}")
            for number, (entity, attribute) in enumerate(asked, start=1)
        ]
        start += count
    for count in FIRST_QUERIES:
        queries[f"train{count}"] = queries["train"][:count]
    return Shipped(shipped, queries)


def write(folder: Path) -> None:
    """Write the world that ships in BEIR's layout: corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv."""
    shipped, splits = world()
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    documents = [{"_id": one.docid, "title": one.subject.name, "text": one.text} for one in shipped.passages]
    asked = [{"_id": one.qid, "text": one.text} for split in SPLITS for one in splits[split]]
    for name, rows in (("corpus", documents), ("queries", asked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, queries in splits.items():
        lines = [f"{query.qid}\t{one.docid}\t{grade}\n" for query in queries for one, grade in shipped.judged(query)]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
