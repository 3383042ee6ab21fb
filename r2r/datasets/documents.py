"""A document as every collection returns it, and the checks that all collections share.

Owns what a sound document is: it has an id, and its text is valid Unicode. Does not own files or formats.

    document("d1", "A title", "The text.")
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple, Protocol


class Document(NamedTuple):
    docid: str
    title: str
    text: str
    repaired: bool  # whether U+FFFD replaced characters that are not valid Unicode


class Part(Protocol):
    """A part of a corpus or of a table, which one worker reads."""

    unit: ClassVar[str]  # what a position counts: "B" for bytes, "document" or "row"

    @property
    def size(self) -> int | None:
        """Units from the start of the part to its end; None if not known before it is read."""
        ...

    def read(self) -> Iterator[tuple[int, Any]]:
        """Yield each document or row with its position in the source."""
        ...

    def place(self, at: int) -> str:
        """Return where a person finds a position, such as FILE:LINE."""
        ...


def document(docid: Any, title: Any, text: Any, repaired: bool = False) -> Document:
    """Check and return a document. Raises ValueError with what is wrong and what would be right."""
    docid, first = clean(as_id(docid, "document"))
    title, second = clean(as_text(title, "title"))
    text, third = clean(as_text(text, "text"))
    return Document(docid, title, text, repaired or first or second or third)


def contents(document: Document) -> str:
    """Return the text to index, which is also the candidate's text: the title, a line break and the text."""
    return f"{document.title}\n{document.text}" if document.title else document.text


def as_id(value: Any, what: str) -> str:
    """Return an id as text. Raises ValueError for a missing or empty id, and for a number that is not whole.

    A whole number is an id too, and 1.0 is the id "1": a Parquet or JSON column of numbers with gaps becomes one of
    floats. A text stays as it is: "1.0" is the id "1.0".
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        shown = "has no id" if value is None else f"has the id {value!r}"
        raise ValueError(f"the {what} {shown}; an id that is not empty is needed")
    if not isinstance(value, str):
        raise ValueError(f'the {what} has the id {value!r}; write it as text, such as "17", or as a whole number')
    return value


def as_text(value: Any, what: str) -> str:
    """Return a text, "" for None. Raises ValueError for any other type."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"its {what} is {type(value).__name__}; text is needed")
    return value


def clean(text: str) -> tuple[str, bool]:
    """Return the text with U+FFFD for lone surrogates (JSON can hold them, UTF-8 cannot), and whether it had any."""
    try:
        if not text.isascii():
            text.encode()
        return text, False
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), True
