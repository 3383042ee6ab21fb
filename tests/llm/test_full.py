"""The queue has room for 3 requests at a time."""

import pytest

from r2r.llm import batch, open_model
from tests.llm.batches import Batches, answered
from tests.llm.test_batch import ask, prompt_of, quick  # noqa: F401


@pytest.mark.parametrize("room", [3, 0])
def test_a_batch_that_the_queue_has_no_room_for_goes_in_parts(room, monkeypatch):
    monkeypatch.setattr(batch, "_MOST_REQUESTS", 8)
    server = Batches(lambda request, sent: answered(request, prompt_of(request)))
    look = server.look

    def full(one):
        running = sum(o["request_counts"]["total"] for o in server.batches.values() if o["status"] == "in_progress")
        if one["looks"] == 0 and running > room:
            one |= {
                "looks": 9,
                "status": "failed",
                "errors": {"data": [{"code": "token_limit_exceeded", "message": "full"}]},
            }
        return look(one)

    server.look = full
    prompts = [f"p{at}" for at in range(20)]
    model = open_model(server.address, batch="t")
    found = ask(model, *prompts)
    if room:
        assert [one.text for one in found] == prompts and set(server.paid.values()) == {1} and len(server.paid) == 20
        assert model.so_far == {"begun": 20, "steps": 20}
    else:
        assert all("did not take this batch: full" in str(one) for one in found) and not server.paid
    server.close()
