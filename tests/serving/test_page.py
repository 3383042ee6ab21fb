"""The page at /: what is served, and what a person sees of it in a browser. Without Chromium the latter is skipped;
R2R_PICTURES names a folder for screenshots.

.venv/bin/python -m pytest tests/serving/test_page.py
"""

import asyncio
import json
import os
import re
import subprocess
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.serving.browser import PROGRAM, browser
from tests.serving.served import Ranker, address, client

seen = pytest.mark.skipif(PROGRAM is None, reason="no Chromium: install it (Debian: apt-get install chromium)")
EVIL = [
    "<script>window.harmed = 1</script> is what this one says",
    '<img src=x onerror="window.harmed = 2">',
    "</textarea><b onclick='x'>short</b>",
]


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.ids, self.labelled = [], set(), set()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.found.append((tag, given))
        self.ids |= {given["id"]} if "id" in given else set()
        self.labelled |= {given["for"]} if "for" in given else set()


@pytest.fixture(scope="module")
def page():
    return client()[0].get("/")


def test_it_is_one_file_that_names_no_other_address(page):
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert not re.search(r"(?:https?:)?//[a-z0-9]", page.text, re.IGNORECASE)
    tags = Tags()
    tags.feed(page.text)
    sources = [given[name] for _, given in tags.found for name in ("src", "href", "action") if name in given]
    assert sources == ["data:,"]
    # What the policy would not run, and what would make markup of a text.
    assert not any(name.startswith("on") or name == "style" for _, given in tags.found for name in given)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|localStorage|cookie", page.text
    )


def test_its_policy_lets_nothing_else_run(page):
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    for source in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", policy[source])
    assert page.headers["x-content-type-options"] == "nosniff"


def test_each_field_has_a_label_and_the_phone_its_width(page):
    tags = Tags()
    tags.feed(page.text)
    fields = {given["id"] for tag, given in tags.found if tag in ("input", "textarea", "select")}
    assert fields == tags.labelled
    assert {name for _, given in tags.found if (name := given.get("aria-describedby"))} <= tags.ids
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags.found
    assert ("html", {"lang": "en"}) in tags.found


def test_it_is_open_and_the_rest_is_not():
    asking, _ = client("secret")
    assert [asking.get(path).status_code for path in ("/", "/examples", "/v1/models")] == [200, 200, 401]


def test_its_examples_are_of_the_built_in_world():
    found = client()[0].get("/examples").json()
    assert len(found) == 5 and found[4]["query"] == "what drives the Esker furnace"
    for one in found:
        assert len(one["documents"]) > 4 and all("\n" in text and "\n\n" not in text for text in one["documents"])


@pytest.fixture(scope="module")
def tab():
    with browser() as tab:
        yield tab


def reasons_of(text):
    """Evidence of a text's fourth and fifth word, with a space between them, and a comparison with two documents."""
    evidence = " ".join(text.split()[3:5])
    return {"evidence": evidence, "direct": f"Long: {len(text)}.", "comparison": "More than [0], less than [9]."}


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patched, address() as server:
        patched.setattr(Ranker, "reasons_of", staticmethod(reasons_of))
        yield server


def picture(tab, name):
    if folder := os.environ.get("R2R_PICTURES"):
        tab.picture(Path(folder) / f"{name}.png")


def ask(tab, documents, query="q", key=None):
    """Fill in the form by its fields, and press the button."""
    values = {"query": query, "documents": json.dumps(documents)} | ({"key": key} if key else {})
    for field, value in values.items():
        tab.run(f"document.getElementById('{field}').value = {json.dumps(value)}")
    tab.run("document.querySelector('button').click()")
    tab.until("/^(Done|[a-z])/.test(document.getElementById('status').textContent)")


def texts(tab, selector):
    return tab.run(f"[...document.querySelectorAll('{selector}')].map((one) => one.innerText)")


@seen
def test_it_can_be_used_with_the_keyboard_alone(tab, server):
    tab.open(f"{server}/")
    tab.press("Tab")
    tab.press("Tab")
    assert tab.run("document.activeElement.id") == "query"
    tab.type("why is it long")
    tab.press("Tab")
    tab.type("Short\nIs it?\n\nThe very longest one\n  of them: it has words.\n\nMiddle, by <b>far</b> not Short.")
    tab.press("Enter", control=True)
    tab.until("document.getElementById('status').textContent.startsWith('Done')")
    assert [one.split("\n")[0] for one in texts(tab, "#after > li")] == [
        "1. Document [1]",
        "2. Document [2]",
        "3. Document [0]",
    ]
    assert texts(tab, "#after .faint")[0] == "score 1.000, was 2, up 1"
    assert [one.rpartition(" ")[2] for one in texts(tab, "#before li")] == ["3", "1", "2"]
    # As it stands there, with other white space; the short one has no fifth word, and nothing is marked.
    assert tab.run("[...document.querySelectorAll('mark')].map((one) => one.textContent)") == [
        "one\n  of",
        "not Short.",
    ]
    assert texts(tab, "dt") == ["Why", "Compared with others"] * 3
    # A document that there is not is no link.
    assert texts(tab, "#after > li:first-child a") == ["[0]"]
    assert tab.run("document.querySelector('dd a').hash") == "#document-0"
    picture(tab, "desktop")
    assert {one.partition("/")[0] for one in (url.removeprefix(server) for url in tab.requests)} == {""}
    assert not tab.faults


@seen
def test_texts_are_texts(tab, server):
    tab.open(f"{server}/")
    ask(tab, EVIL, query=EVIL[0])
    assert sorted(texts(tab, "#after .text")) == sorted(EVIL)
    assert tab.run("document.querySelectorAll('#result script, #result img, #result b').length") == 0
    assert tab.run("window.harmed") is None and not tab.faults
    # The policy holds even if a script were to slip in.
    assert tab.run("try { document.body.innerHTML = '<img src=x>'; 'set' } catch (error) { error.name }") == "TypeError"


@seen
def test_it_fits_a_phone(tab, server):
    tab.open(f"{server}/", 360, 740, phone=True)
    tab.run("document.getElementById('example').value = 4")
    tab.run("document.getElementById('example').dispatchEvent(new Event('change'))")
    assert tab.run("document.getElementById('query').value") == "what drives the Esker furnace"
    tab.run("document.getElementById('documents').value += '\\n\\n' + 'x'.repeat(500)")
    tab.run("document.querySelector('button').click()")
    tab.until("document.getElementById('status').textContent.startsWith('Done')")
    assert tab.run("document.documentElement.scrollWidth") == 360
    assert tab.run("Math.min(...[...document.querySelectorAll('button')].map((one) => one.offsetHeight || 44))") >= 44
    picture(tab, "phone")


@seen
def test_the_curl_gives_what_the_page_shows(tab, server):
    tab.open(f"{server}/")
    ask(tab, ["it's", 'a "longer" one\nof $HOME `x`', "\\"])
    command = tab.run("document.getElementById('curl').textContent")
    told = json.loads(subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, check=True).stdout)
    assert [one["index"] for one in told["results"]] == [1, 0, 2]
    assert told["results"][0]["document"]["text"] == 'a "longer" one\nof $HOME `x`'


@seen
def test_a_key_is_asked_for_and_stays_in_the_tab(tab):
    with address("secret") as server:
        tab.open(f"{server}/")
        tab.until("!document.getElementById('keys').hidden")
        ask(tab, ["a", "bb"], key="wrong")
        assert tab.run("document.getElementById('status').textContent").startswith("api key: missing or unknown")
        assert tab.run("document.activeElement.id") == "key"
        ask(tab, ["a", "bb"], key="secret")
        assert len(texts(tab, "#after > li")) == 2
        assert "secret" not in tab.run("document.documentElement.innerHTML + document.cookie + location")
        assert '-H "x-api-key: $R2R_API_KEY"' in tab.run("document.getElementById('curl').textContent")
        assert tab.run("localStorage.length") == 0 and tab.run("Object.values(sessionStorage)") == ["secret"]


@seen
def test_what_goes_wrong_is_told(tab, server):
    tab.open(f"{server}/")
    ask(tab, [{"title": "without a text"}])
    assert tab.run("document.getElementById('status').textContent").startswith(
        "documents: number 0, counted from 0, has no"
    )
    assert tab.run("document.getElementById('status').className") == "error"


@seen
def test_reasons_appear_as_they_are_written_and_can_be_stopped(tab):
    go_on, stopped = threading.Event(), threading.Event()

    async def later(count):
        try:
            while not go_on.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            stopped.set()
            raise

    def start():
        tab.run(f"document.getElementById('documents').value = {json.dumps(json.dumps(['a', 'bb', 'ccc']))}")
        tab.run("document.getElementById('query').value = 'q'")
        tab.run("document.querySelector('button').click()")
        tab.until("document.querySelectorAll('dl').length === 1 && document.querySelectorAll('.waiting').length === 2")
        assert tab.run("document.getElementById('status').textContent").endswith("The reasons follow\u2026")

    with address(later=later) as server:
        tab.open(f"{server}/")
        start()
        go_on.set()
        tab.until("document.getElementById('status').textContent.startsWith('Done')")
        assert tab.run("document.querySelectorAll('dl').length") == 3
        go_on.clear()
        start()
        tab.run("document.getElementById('stop').click()")
        tab.until("document.getElementById('status').textContent === 'Stopped.'")
        assert tab.run("document.querySelectorAll('.waiting').length") == 0 and stopped.wait(30)
