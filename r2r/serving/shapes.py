"""The requests that clients of rerankers send, and the answers that they read.

Owns the shapes of Cohere (v1, v2), Jina, vLLM, Infinity, Voyage, Mixedbread and TEI. All name the same things, so each
request has the fields of `Request`, and turns one `Answer` into its client's shape. Does not own paths or ranking.

    request = Request(query="how long do fleas live", documents=["Dogs bark.", {"title": "Fleas", "text": "100 days."}])
    request.texts           # ["Dogs bark.", "Fleas\\n100 days."]
    request.shaped(answer)  # {"id": ..., "results": [{"index": 1, "relevance_score": 1.0, ...}], ...}
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PrivateAttr, StringConstraints, Tag, model_validator

from r2r.llm import Died, Refused
from r2r.student.scores import FirstStage

MOST_DOCUMENTS = 1000
# In characters. A passage's place in a prompt is far smaller; what is longer is a mistake.
LONGEST_DOCUMENT, LONGEST_QUERY = 100_000, 10_000
# Of a first stage's scores, so that differences are finite.
_LARGEST = 1e100
# Levels of an object, which is repeated in the answer.
_DEEPEST = 20

Document = Annotated[str, StringConstraints(max_length=LONGEST_DOCUMENT)] | dict[str, Any]
FirstStageScore = Annotated[float, Field(strict=True, ge=-_LARGEST, le=_LARGEST)]
Documents = Annotated[list[Document], Field(min_length=1, max_length=MOST_DOCUMENTS)]


@dataclass(frozen=True)
class Result:
    """A ranked document. index: its place in the request. document: as it was given. reasons: of an explained one."""

    index: int
    score: float
    document: str | dict[str, Any]
    text: str
    reasons: dict[str, str] | None


class Answer(NamedTuple):
    """What a ranking gave. model: its public name. results: best first."""

    model: str
    results: list[Result]
    prompt_tokens: int
    completion_tokens: int


class Request(BaseModel):
    """The shape of Cohere v1, Jina and vLLM. What it does not name is ignored: clients send settings of other models.

    A field that is null is as if it were left out.
    """

    model_config = ConfigDict(protected_namespaces=(), validate_by_name=True, validate_by_alias=True)

    model: str = Field("", max_length=1000, description="the served model's name; left out, it is that one")
    query: str = Field(min_length=1, max_length=LONGEST_QUERY)
    documents: Documents = Field(
        description="texts, or objects with `text` and optionally `title`, or with the fields that `rank_fields` names"
    )
    top_n: int = Field(MOST_DOCUMENTS, ge=1, description="results to return; left out, all")
    return_documents: bool = Field(True, description="repeat each document in its result")
    max_tokens_per_doc: int | None = Field(None, ge=1, description="longest document in tokens; longer ones are cut")
    rank_fields: list[str] | None = Field(
        None, min_length=1, max_length=100, description="fields of objects that are ranked by, joined by line breaks"
    )
    min_score: float = Field(0, allow_inf_nan=False, description="leave out results with a lower score")
    first_stage_weight: float = Field(
        0,
        ge=0,
        le=1,
        description="weight of the first stage's scores: (1 - weight) * score + weight * first-stage score, each "
        "min-max-normalised over the documents",
    )
    first_stage_scores: Annotated[list[FirstStageScore], Field(max_length=MOST_DOCUMENTS)] | None = Field(
        None, description="the first stage's score of each document; left out, each document's own field `score`"
    )
    explain: bool | Annotated[int, Field(ge=0)] | Annotated[list[int], Field(max_length=MOST_DOCUMENTS)] = Field(
        False,
        description="reasons: true for all results, or for the first so many, at most a window; or for documents with "
        "these indices, as far as they are in the window that ranks first",
    )
    stream: bool = Field(False, description="server-sent events: the order, then a reason at a time")
    _texts: list[str] = PrivateAttr()
    _first_stage: FirstStage | None = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _have_texts(self) -> Request:
        self._texts = [_text(document, place, self.rank_fields) for place, document in enumerate(self.documents)]
        if isinstance(self.explain, list) and not all(0 <= index < len(self.documents) for index in self.explain):
            raise ValueError("explain: names a document that is not there; indices are counted from 0")
        self._first_stage = self._read_first_stage()
        return self

    def _read_first_stage(self) -> FirstStage | None:
        """Return the first stage's scores and weight. Raises ValueError for some that are missing or no numbers."""
        scores = self.first_stage_scores
        if not self.first_stage_weight:
            if scores is not None:
                raise ValueError("first_stage_scores: have no weight; give first_stage_weight, from 0 to 1")
            return None
        if scores is None:
            scores = [_given_score(document, place) for place, document in enumerate(self.documents)]
        if len(scores) != len(self.documents):
            raise ValueError(f"first_stage_scores: {len(scores)} of {len(self.documents)} documents; give one for each")
        return FirstStage(scores, self.first_stage_weight)

    @property
    def texts(self) -> list[str]:
        """The text of each document."""
        return self._texts

    @property
    def first_stage(self) -> FirstStage | None:
        """The first stage's scores and their weight, None without a weight."""
        return self._first_stage

    def shaped(self, answer: Answer) -> Any:
        """Return the answer as this request's client reads it."""
        tokens = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
        spent = {"input_tokens": answer.prompt_tokens, "output_tokens": answer.completion_tokens}
        return {
            "id": f"rerank-{uuid.uuid4().hex}",
            "model": answer.model,
            "results": self._items(answer, "relevance_score", "document", _as_object),
            "usage": tokens | {"total_tokens": sum(tokens.values())},
            "meta": {"api_version": {"version": "1"}, "billed_units": {"search_units": 1}, "tokens": spent},
        }

    def _items(self, answer: Answer, score: str, document: str, form: Any) -> list[dict[str, Any]]:
        """Return the results; `score` and `document` are the client's names, `form` turns a Result into a document."""
        return [
            {"index": result.index, score: result.score}
            | ({document: form(result)} if self.return_documents else {})
            | ({"reasons": result.reasons} if self.explain else {})
            for result in answer.results
        ]


class CohereV2(Request):
    """Cohere v2: its answer repeats no documents, unless it is asked to."""

    return_documents: bool = False


class Infinity(Request):
    """Infinity: documents are repeated as texts, not as objects."""

    def shaped(self, answer: Answer) -> Any:
        whole = super().shaped(answer)
        return whole | {"results": self._items(answer, "relevance_score", "document", _as_text)}


class Voyage(Request):
    """Voyage AI."""

    top_n: int = Field(MOST_DOCUMENTS, ge=1, alias="top_k")
    return_documents: bool = False

    def shaped(self, answer: Answer) -> Any:
        return {
            "object": "list",
            "data": self._items(answer, "relevance_score", "document", _as_text),
            "model": answer.model,
            "usage": {"total_tokens": answer.prompt_tokens + answer.completion_tokens},
        }


class Mixedbread(Request):
    """Mixedbread AI."""

    documents: Documents = Field(alias="input")
    top_n: int = Field(MOST_DOCUMENTS, ge=1, alias="top_k")
    return_documents: bool = Field(False, alias="return_input")

    def shaped(self, answer: Answer) -> Any:
        tokens = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
        return {
            "object": "list",
            "data": self._items(answer, "score", "input", lambda result: result.document),
            "model": answer.model,
            "usage": tokens | {"total_tokens": sum(tokens.values())},
            "top_k": len(answer.results),
            "return_input": self.return_documents,
        }


class Tei(Request):
    """Hugging Face's text-embeddings-inference."""

    documents: Documents = Field(alias="texts")
    return_documents: bool = Field(False, alias="return_text")
    raw_scores: bool = Field(False, description="accepted; scores are the same")

    def shaped(self, answer: Answer) -> Any:
        return self._items(answer, "score", "text", _as_text)


def _shape(given: Any) -> str:
    """Return which client wrote a request to a path that several share, by the fields that only it has."""
    if not isinstance(given, dict):
        return "cohere"
    return "tei" if "texts" in given else "voyage" if given.keys() & {"top_k", "truncation"} else "cohere"


AnyRequest = Annotated[
    Annotated[Request, Tag("cohere")] | Annotated[Voyage, Tag("voyage")] | Annotated[Tei, Tag("tei")],
    Discriminator(_shape),
]


@dataclass(frozen=True)
class Error:
    """An error's status and its sentence, for a person."""

    status: int
    sentence: str

    def shaped(self) -> dict[str, Any]:
        """Return it so that each client shows the sentence: Cohere's reads `message`, OpenAI's `error`, Jina's and
        Voyage's `detail`."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.sentence, "type": kind, "param": None, "code": self.status}
        return {"message": self.sentence, "detail": self.sentence, "error": error}


FAILED = Error(500, "server: failed on this request; its log says why")


def error_of(error: Refused | Died | TimeoutError) -> Error:
    """Return the status and message for a ranking that failed."""
    if isinstance(error, Refused):
        return Error(400, str(error)[:500])
    if isinstance(error, Died):
        return Error(503, "engine: died, and is being replaced; try again later")
    return Error(504, "ranking: took too long; send fewer documents, or try again later")


def sentence_of(error: Any) -> str:
    """Return one of pydantic's errors as a sentence that names the field and repeats nothing of the request."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    place = ".".join(str(part) for part in error["loc"] if part not in ("body", "cohere", "voyage", "tei"))
    return f"{place or 'body'}: {error['msg'][0].lower()}{error['msg'][1:]}"[:500]


def _text(document: str | dict[str, Any], place: int, rank_fields: list[str] | None) -> str:
    """Return a document's text. Raises ValueError, without the document's content, if it has none."""
    if isinstance(document, str):
        return document.replace("\0", " ")
    where = f"documents: number {place}, counted from 0,"
    if not _is_shallow(document):
        raise ValueError(f"{where} has more than {_DEEPEST} levels; give fewer")
    try:
        size = len(json.dumps(document, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:
        raise ValueError(f"{where} holds NaN, an infinite number or half a character; leave it out") from None
    if size > LONGEST_DOCUMENT:
        raise ValueError(f"{where} is longer than {LONGEST_DOCUMENT} bytes; give less")
    if rank_fields is None and not isinstance(document.get("text"), str):
        raise ValueError(f"{where} has no text; give a text, an object with 'text', or rank_fields")
    parts = [document.get(name) for name in rank_fields or ("title", "text")]
    text = "\n".join(str(part) for part in parts if part not in (None, ""))
    if rank_fields and not text:
        raise ValueError(f"{where} has none of the rank_fields")
    return text.replace("\0", " ")


def _given_score(document: str | dict[str, Any], place: int) -> float:
    """Return a document's field `score`. Raises ValueError if it is no number."""
    score = document.get("score") if isinstance(document, dict) else None
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= _LARGEST:
        raise ValueError(
            f"documents: number {place}, counted from 0, has no first-stage score; give first_stage_scores, or "
            f"documents with a number as 'score'"
        )
    return float(score)


def _is_shallow(value: Any, levels: int = _DEEPEST) -> bool:
    """Return whether a JSON value has at most so many levels."""
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(one, levels - 1) for one in inner)


def _as_object(result: Result) -> dict[str, Any]:
    return result.document if isinstance(result.document, dict) else {"text": result.document}


def _as_text(result: Result) -> str:
    return result.text
