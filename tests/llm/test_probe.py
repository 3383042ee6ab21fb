"""What servers refuse, and how they are asked then."""

import json

import pytest

from r2r.config import Dialect
from r2r.errors import BadInput
from r2r.llm.probe import probe

SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}, "required": ["a"]}
DONE = {
    "choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}
WHOLE = Dialect(response_format="json_schema", seed=True, temperature="own", max_tokens="max_tokens", content="text")


def error(message, status=400):
    return status, {}, {"error": {"message": message, "type": "invalid_request_error"}}


def openai_reasoning(body):
    if "max_tokens" in body:
        return error("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.")
    if body.get("temperature", 1) != 1:
        return error("Unsupported value: 'temperature' does not support 0.0 with this model. Only 1 is supported.")
    return 200, {}, DONE


def only_one(body):
    return (200, {}, DONE) if body.get("temperature") == 1 else error("'temperature' must be 1 for this model")


def no_schema(body):
    if body.get("response_format", {}).get("type") == "json_schema":
        return error("This response_format type is unavailable now")
    return 200, {}, DONE


def no_format(body):
    return error("response_format: unknown field") if "response_format" in body else (200, {}, DONE)


def no_lengths(body):
    if "maxLength" in json.dumps(body):
        return error("Invalid schema for response_format 'reply': 'maxLength' is not permitted.")
    return 200, {}, DONE


def no_extras(body):
    fields = [name for name in ("seed", "response_format") if name in body]
    found = [
        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"} for name in fields
    ]
    return (422, {}, {"detail": found}) if found else (200, {}, DONE)


def only_parts(body):
    if isinstance(body["messages"][0]["content"], str):
        return 422, {}, {"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "Input should be a valid list"}]}
    return 200, {}, DONE


def silent(body):
    return (400, {}, {"error": "bad request"}) if "seed" in body else (200, {}, DONE)


def silent_twice(body):
    return (400, {}, {}) if "seed" in body or "response_format" in body else (200, {}, DONE)


@pytest.mark.parametrize(
    ("server", "changes", "calls"),
    [
        ((200, {}, DONE), {}, 1),
        (openai_reasoning, {"max_tokens": "max_completion_tokens", "temperature": "none"}, 3),
        (only_one, {"temperature": "1"}, 3),
        (no_schema, {"response_format": "json_object"}, 2),
        (no_format, {"response_format": "none"}, 3),
        (no_lengths, {"response_format": "bare_schema"}, 2),
        (no_extras, {"response_format": "none", "seed": False}, 3),
        (only_parts, {"content": "parts"}, 2),
        # Words that name nothing: each parameter alone, then all.
        (silent, {"seed": False}, 5),
        (silent_twice, {"response_format": "none", "seed": False, "temperature": "none"}, 10),
    ],
)
def test_what_a_refusal_names_is_spelled_otherwise_and_nothing_else(serving, server, changes, calls):
    address, received = serving(server)
    found = probe(address, Dialect(), "Rank.", SCHEMA, 9)
    assert found.dialect == WHOLE.model_copy(update=changes)
    assert found[2:] == (calls, 7, 3) and len(received) == calls
    assert bool(found.refusal) == bool(changes) and found.refusal[:3] in ("", "400", "422")


def test_a_server_that_fails_at_a_spelling_is_not_waited_for(serving, pauses):
    def server(body):
        if "response_format" not in body:
            return 200, {}, DONE
        return (500, {}, {}) if body["response_format"]["type"] == "json_object" else error("no json_schema here")

    address, received = serving(server)
    found = probe(address, Dialect(), "Rank.", SCHEMA, 9)
    assert found.dialect == WHOLE.model_copy(update={"response_format": "none"}) and pauses[:2] == [1, 2]
    assert [body.get("response_format", {}).get("type") for _, _, body in received].count("json_object") == 3
    with pytest.raises(BadInput, match="gave up after 15 tries; the last: 500"):
        probe(serving((500, {}, {}))[0], Dialect(), "Rank.", SCHEMA, 9)


def test_the_requests_are_spelled_as_found(serving):
    address, received = serving((200, {}, DONE))
    probe(address, WHOLE, "Rank.", SCHEMA, 9)
    least = {"response_format": "none", "seed": False, "temperature": "none", "content": "parts"}
    probe(address, Dialect(**least, max_tokens="max_completion_tokens"), "Rank.", SCHEMA, 9)
    probe(address, Dialect(response_format="bare_schema"), "Rank.", SCHEMA, 9)
    probe(address, Dialect(response_format="json_object"), "Rank.", SCHEMA, 9)
    whole, bare, plain, loose = (body for _, _, body in received)
    assert {"max_tokens", "temperature", "seed"} <= whole.keys() and whole["messages"][0]["content"] == "Rank."
    assert whole["response_format"]["json_schema"]["schema"] == SCHEMA
    content = [{"type": "text", "text": "Rank."}]
    assert bare == {
        "model": "the-model",
        "messages": [{"role": "user", "content": content}],
        "max_completion_tokens": 9,
    }
    unlimited = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    assert plain["response_format"]["json_schema"]["schema"] == unlimited
    assert loose["response_format"] == {"type": "json_object"}


def test_what_the_settings_force_is_not_tried_otherwise(serving):
    address, received = serving(no_format)
    with pytest.raises(BadInput, match=r"refuses the job's requests however .* refusal: 400: .*unknown field.*; see"):
        probe(address, Dialect(response_format="json_object"), "Rank.", SCHEMA, 9)
    assert {body["response_format"]["type"] for _, _, body in received} == {"json_object"}


@pytest.mark.parametrize(
    "message", ["model 'x' not found, try pulling it first", "Invalid model: x", "x is not a valid model ID"]
)
def test_an_unknown_model_ends_at_once_with_its_name(serving, message):
    address, received = serving(error(message))
    with pytest.raises(BadInput, match=rf"400: .*{message[:5]}.*the model's name, here x"):
        probe(f"{address}#x", Dialect(), "Rank.", SCHEMA, 9)
    assert len(received) == 1
