"""A document as every collection gives it, and the checks that hold for all of them.

Owns what makes a document sound: an id, and text that is valid Unicode. Does not own files or formats.

    document("d1", "A title", "The text.")
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol


class Document(NamedTuple):
    docid: str
    title: str
    text: str
    repaired: bool  # whether characters that are not valid Unicode were replaced by U+FFFD


class Part(Protocol):
    """A part of a corpus, which one worker reads."""

    size: int | None  # how far the positions below go, from the first document's; None where not known beforehand
    unit: str  # what a position counts: "B" for bytes, else "document"

    def read(self) -> Iterator[tuple[int, Document]]:
        """Yield each document with its position in the source."""
        ...

    def place(self, at: int) -> str:
        """Return a position as a person would look it up, such as FILE:LINE."""
        ...


def document(docid: Any, title: Any, text: Any, repaired: bool = False) -> Document:
    """Check the parts of a document. Raises ValueError with what is wrong and what would be right."""
    docid, first = clean(as_id(docid, "document"))
    title, second = clean(as_text(title, "title"))
    text, third = clean(as_text(text, "text"))
    return Document(docid, title, text, repaired or first or second or third)


def as_id(value: Any, what: str) -> str:
    """Return an id as text; numbers are ids too. Raises ValueError where it is missing or empty."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        shown = "has no id" if value is None else f"has the id {value!r}"
        raise ValueError(f"the {what} {shown}; an id that is not empty is needed")
    return value


def as_text(value: Any, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"its {what} is {type(value).__name__}; text is needed")
    return value


def clean(text: str) -> tuple[str, bool]:
    """Replace surrogates that stand alone, which JSON can hold and UTF-8 cannot."""
    try:
        if not text.isascii():
            text.encode()
        return text, False
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), True
