"""Calls to an OpenAI-compatible server: requests, retries and refusals."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from r2r.errors import BadInput
from r2r.llm import Refused, server

DONE = {
    "choices": [{"message": {"content": "[2] > [1]"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
}


def ask(address, **options):
    return asyncio.run(server.RemoteModel(address).complete("Rank.", max_tokens=9, **options))


def test_a_reply_and_its_request(serving):
    address, received = serving((200, {}, DONE))
    reply = ask(address, schema={"type": "object"}, seed=3)
    assert reply == ("[2] > [1]", True, 7, 3, 4, "")
    ((path, key, body),) = received
    assert path == "/v1/chat/completions" and key == "Bearer a-secret"
    assert body["model"] == "the-model" and body["seed"] == 3 and body["max_tokens"] == 9
    assert body["messages"] == [{"role": "user", "content": "Rank."}]
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_an_address_can_name_the_model(serving):
    address, received = serving((200, {}, DONE))
    ask(f"{address}#another")
    assert received[0][2]["model"] == "another"


def test_a_busy_or_failing_server_is_retried_when_it_says(serving, pauses):
    address, received = serving((429, {"Retry-After": "7"}, {}), (503, {}, {}), (200, {}, DONE))
    assert ask(address).text == "[2] > [1]"
    assert len(received) == 3 and pauses == [7, 2]


def test_retries_end(serving, pauses):
    address, received = serving((500, {}, {"error": "out of memory"}))
    with pytest.raises(BadInput, match=r"gave up after 15 tries; the last: 500: .*out of memory.*; see to the server"):
        ask(address)
    assert len(received) == 15 and pauses[:3] == [1, 2, 4] and max(pauses) == 60


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("7", 7, 7), ("0.5", 0.5, 0.5), ("-3", 0, 0), ("", 2, 2), ("soon", 2, 2), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0)],
)
def test_the_pause_that_a_server_asks_for(header, least, most):
    assert least <= server.retry_pause(header, 2) <= most


def test_the_pause_until_a_date():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 85 < server.retry_pause(date, 2) <= 90


def test_an_address_that_sends_on_for_ever_ends_with_one_line(serving, pauses):
    address, _ = serving((307, {"Location": "/v1/chat/completions"}, {}))
    with pytest.raises(BadInput, match=r"gave up after 15 tries; the last: TooManyRedirects: .*; see to the server"):
        ask(address)


def test_an_answer_that_is_no_completion_is_retried(serving, pauses):
    address, received = serving((200, {}, {"error": "x"}), (200, {}, [1]), (200, {}, DONE))
    assert ask(address).text == "[2] > [1]" and len(received) == 3


def test_a_refusal_is_final_and_has_the_servers_words(serving):
    address, received = serving((400, {}, {"error": {"message": "prompt is too long"}}))
    with pytest.raises(Refused, match="prompt is too long"):
        ask(address)
    assert len(received) == 1


def test_a_reply_that_was_cut_off_is_not_complete(serving):
    cut = {**DONE, "choices": [{"message": {"content": "[2"}, "finish_reason": "length"}]}
    address, _ = serving((200, {}, cut))
    assert not ask(address).complete


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"choices": []}, "the server's answer has no choices"),
        ({"choices": [None]}, "content is empty (finish_reason None)"),
        ({"choices": [{"message": {"content": None, "refusal": "I cannot."}}]}, "the model refused: I cannot."),
        ({"choices": [{"message": {"content": None, "tool_calls": [{}]}}]}, "the model called tools"),
        ({"choices": [{"message": {"reasoning_content": "hm"}}]}, "the model wrote to reasoning_content only"),
        ({"choices": [{"message": {"content": {"a": 1}}}]}, "content is no text but {'a': 1}"),
        ({"choices": [{"message": {"content": "", "reasoning": "hm"}}]}, "the model wrote to reasoning only"),
        ({"choices": [{"message": {"content": None, "function_call": {"name": "f"}}}]}, "the model called tools"),
        ({"choices": [{"message": {}, "finish_reason": "content_filter"}]}, "content is empty (finish_reason content_"),
    ],
)
def test_an_answer_without_text_says_why(serving, changed, fault):
    address, received = serving((200, {}, DONE | changed))
    reply = ask(address)
    assert reply.text == "" and fault in reply.fault and reply.complete and len(received) == 1


def test_a_part_that_a_filter_left_says_so(serving):
    part = {"choices": [{"message": {"content": "[2"}, "finish_reason": "content_filter"}]}
    assert ask(serving((200, {}, DONE | part))[0])[::5] == ("[2", "the server's content filter ended the reply")


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": None, "completion_tokens": "3"}, {"prompt_tokens": -1}])
def test_a_usage_of_any_kind_counts_nothing(serving, usage):
    address, _ = serving((200, {}, DONE | {"usage": usage}))
    assert ask(address)[2:] == (0, 0, 0, "")


def test_content_in_parts_is_joined(serving):
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "[2] > "}, {"type": "text", "text": "[1]"}]
    address, _ = serving((200, {}, DONE | {"choices": [{"message": {"content": parts}, "finish_reason": "eos"}]}))
    assert ask(address)[:2] == ("[2] > [1]", True)


def test_an_answer_that_never_is_a_completion_is_the_rows_fault(serving, pauses):
    address, received = serving((200, {}, {"error": {"message": "provider returned nothing"}}))
    with pytest.raises(Refused, match=r"an answer that is no chat completion: .*provider returned nothing"):
        ask(address)
    assert len(received) == 3
    # Words that are no JSON are those of a proxy before a server that starts.
    address, received = serving(*[(200, {}, b"<html>")] * 5, (200, {}, DONE))
    assert ask(address).text == "[2] > [1]" and len(received) == 6


def test_the_status_in_an_error_that_was_sent_as_a_success_counts(serving, pauses):
    address, received = serving(
        (200, {}, {"error": {"code": 502}}), (200, {}, {"error": {"code": 429}}), (200, {}, DONE)
    )
    assert ask(address).text == "[2] > [1]" and len(received) == 3
    for code, kind in ((401, BadInput), (400, Refused)):
        with pytest.raises(kind, match="no key"):
            ask(serving((200, {}, {"error": {"code": code, "message": "no key"}}))[0])


def test_an_account_without_money_is_not_waited_for(serving, pauses):
    address, received = serving((429, {}, {"error": {"code": "insufficient_quota"}}))
    with pytest.raises(BadInput, match=r"insufficient_quota.*; see to the key .*, the account"):
        ask(address)
    assert len(received) == 1 and not pauses


def test_redirects_are_followed_or_told(serving):
    address, received = serving((200, {}, DONE))
    moved, _ = serving((307, {"Location": f"{address}/chat/completions"}, {}))
    assert ask(moved).text == "[2] > [1]" and len(received) == 1
    # A client sends a GET to where a 302 points, without the request.
    lost, _ = serving((302, {"Location": f"{address}/models"}, {}))
    with pytest.raises(BadInput, match=f"sends requests on to {address}/models in a way that loses them .302.; give"):
        ask(lost)


@pytest.mark.parametrize(
    ("models", "used"),
    [
        ("https://host/v1/models", "https://host/v1"),
        ("http://host:8000/api/v1/models", "http://host:8000/api/v1"),
        # The key is for the host that was named.
        ("https://another/v1/models", "http://host:8000/v1"),
        ("http://host:8000/login?from=models", "http://host:8000/v1"),
    ],
)
def test_requests_go_to_where_the_list_of_models_was_found(models, used):
    assert server._moved("http://host:8000/v1", httpx.URL(models)) == used


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_fault_of_the_account_ends_the_job_with_the_servers_words(serving, status):
    address, received = serving((status, {}, {"error": {"message": "no such key"}}))
    with pytest.raises(BadInput, match=rf"{status}: .*no such key.*; see to the key"):
        ask(address)
    assert len(received) == 1


@pytest.mark.parametrize("status", [408, 409, 425])
def test_a_status_that_passes_is_retried(serving, pauses, status):
    address, received = serving((status, {}, {}), (200, {}, DONE))
    assert ask(address).text == "[2] > [1]" and len(received) == 2


def test_a_client_serves_one_call_at_a_time(serving):
    model = server.RemoteModel(serving((200, {}, DONE))[0])

    async def calls(n):
        return await asyncio.gather(*(model.complete("Rank.", max_tokens=9) for _ in range(n)))

    async def all_calls():
        await calls(1)
        await calls(1)
        assert len(model._idle) == 1
        await calls(5)

    asyncio.run(all_calls())
    assert len(model._idle) == 5


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {"error": {"message": "no key,\nno models"}}, "401: .*no key"),
        (404, {"detail": "Not Found"}, "404: .*Not Found"),
        (200, b"<html>\nwelcome</html>", "Expecting value"),
        (200, {"data": []}, "200: "),
    ],
)
def test_a_server_that_lists_no_model_is_told_in_one_line(serving, status, body, said):
    address, _ = serving((200, {}, DONE), listed=(status, {}, body))
    with pytest.raises(BadInput, match=rf"^{address}: lists no model .{said}.*; give the address .*after a #$") as told:
        server.RemoteModel(address)
    assert "\n" not in str(told.value)
    # It need not list any, if one is named.
    assert ask(f"{address}#another").text == "[2] > [1]"


def test_an_address_without_a_server_is_named():
    with pytest.raises(BadInput, match=r"http://127\.0\.0\.1:1/v1: lists no model"):
        server.RemoteModel("http://127.0.0.1:1/v1")
