"""What the judge is asked, how strictly its reply is read, and how far two judgements agree."""

import json

import jsonschema
import pytest

from r2r.judge.kappa import kappa
from r2r.judge.question import Verdict, Written, prompt, read, schema
from r2r.replies import Unsound

WRITTEN = [Written(2, "It says a lot.", "It is above [1]."), Written(1, "", "It is below [2].")]
CLAIMS = [{"claim": "a lot", "verdict": "supported"}, {"claim": "fleas", "verdict": "not in the passage"}]
SOUND = [{"passage": 2, "claims": CLAIMS, "comparison": "right"}, {"passage": 1, "claims": [], "comparison": "wrong"}]


def reply(*judged) -> str:
    return json.dumps({"judged": judged})


def test_the_prompt_has_all_texts_and_asks_for_what_was_written():
    said = prompt("fleas", ["First text.", "Second text."], WRITTEN)
    assert "Query: fleas" in said and "Passage [2]: Second text." in said
    assert "Written about passage [2]:\n- reason: It says a lot.\n- comparison: It is above [1].\n" in said
    assert "Written about passage [1]:\n- comparison: It is below [2].\n" in said
    assert '"claims"' in said and '"comparison"' in said
    only = [Written(1, "It says a lot.", "")]
    assert '"comparison"' not in prompt("fleas", ["First text."], only) and "comparison" not in json.dumps(schema(only))


def test_the_worst_claim_decides():
    found = read(reply(*SOUND), WRITTEN)
    assert found[0] == Verdict("not in the passage", "right", "supported: a lot\nnot in the passage: fleas")
    assert found[1] == Verdict("", "wrong", "")
    jsonschema.validate(json.loads(reply(*SOUND)), schema(WRITTEN))
    assert read(f"<think>Well.</think>```json\n{reply(*SOUND)}\n```", WRITTEN) == found


@pytest.mark.parametrize(
    ("judged", "wrong"),
    [
        ([SOUND[1], SOUND[0]], "not the passages that were asked about"),
        ([SOUND[0]], "not the passages that were asked about"),
        ([SOUND[0] | {"claims": []}, SOUND[1]], "none for a reason"),
        ([SOUND[0], SOUND[1] | {"claims": CLAIMS}], "none for a reason"),
        ([SOUND[0] | {"claims": [{"claim": "a", "verdict": "true"}]}, SOUND[1]], "claims without a verdict"),
        ([SOUND[0] | {"claims": [{"verdict": "supported"}]}, SOUND[1]], "claim is missing"),
        ([SOUND[0] | {"claims": "supported"}, SOUND[1]], "claims is no list"),
        ([SOUND[0] | {"comparison": "none"}, SOUND[1]], "comparison without a verdict"),
        ([SOUND[0] | {"comparison": ["right"]}, SOUND[1]], "comparison without a verdict"),
        (["right", "wrong"], "no list of objects"),
    ],
)
def test_a_reply_that_leaves_a_doubt_is_unsound(judged, wrong):
    with pytest.raises(Unsound, match=wrong):
        read(reply(*judged), WRITTEN)


def test_agreement_beyond_chance():
    assert kappa([("a", "a"), ("b", "b")]) == 1
    assert kappa([("right", "right"), ("wrong", "wrong"), ("right", "wrong")]) == pytest.approx(0.4)
    assert kappa([("a", "b"), ("b", "a")]) == -1
    assert kappa([("a", "a")] * 3) is None and kappa([]) is None
