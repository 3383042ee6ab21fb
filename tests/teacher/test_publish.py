"""Annotations as a dataset: what others load is what was written, and it comes back as it was."""

import json

import pyarrow.parquet as pq
import pytest
import yaml

from r2r import cli, tables
from r2r.datasets import read_annotations
from r2r.teacher import publish

PLACES = ["http://10.0.0.7:8000/v1#big/teacher", "http://10.0.0.7:8000/v1", "/secret/models/teacher-7b", "org/teacher"]


def annotation(number, teacher="org/teacher"):
    return {
        **{"qid": f"q{number}", "query": f"what is “{number}”\u2028?", "docids": ["d1", "d2"]},
        **{"texts": ["A flea lives 100 days.", "Dogs\tbark. \U0001f415"], "ranking": [2, 1], "direct": ["No.", "Yes."]},
        **{"evidence": ["", "Dogs\tbark."], "comparison": ["Below [2].", "Above [1]."], "teacher": teacher},
        **{"key": f"{number:064x}", "attempts": 1 + number % 2, "prompt_tokens": 100, "completion_tokens": 20},
        **{"agreement": None if number % 2 else 0.5},
    }


@pytest.fixture
def annotated(tmp_path):
    """A finished annotate folder with these rows."""

    def make(rows, teacher="org/teacher"):
        out = tmp_path / "annotate"
        content = tables.write(rows, out, "annotations")
        tables.write([], out, "rejects")
        manifest = {
            **{
                "stage": "annotate",
                "identity": "",
                "content": content,
                "files": {},
                "what": {"prompt": "0123456789ab"},
            },
            "settings": {
                **{"teacher": teacher, "passages": 2, "reasoning": "both", "positives": "beir:/secret/fiqa#train"},
                **{"distinct": True, "language": None, "actors": 4, "engine": {"download_dir": "/secret"}},
            },
            **{"rows": {"annotations": len(rows), "rejects": 3}, "prompt_tokens": 900, "completion_tokens": 180},
        }
        (out / "manifest.json").write_text(json.dumps(manifest))
        return out

    return make


def card(folder):
    _, head, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), body


def test_what_is_published_comes_back_as_it_was(annotated, tmp_path, monkeypatch, capsys):
    from datasets import load_dataset

    monkeypatch.setattr(publish, "_ROWS_PER_FILE", 4)
    rows, to = [annotation(number) for number in range(9)], tmp_path / "published"
    publish.publish(annotated(rows), to, "cc-by-4.0")
    assert [len(pq.read_table(file)) for file in tables.files(to, "annotations")] == [4, 4, 1]
    loaded = load_dataset(str(to), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == rows and loaded.column_names == tables.SCHEMAS["annotations"].names
    # As an annotations folder, and as a teacher that was recorded.
    assert read_annotations(str(to)) == (rows, [])
    out = tmp_path / "imported"
    assert cli.main(["annotate", "--import", str(to), "--out", str(out)]) == 0
    assert tables.read(out, "annotations").to_pylist() == rows
    assert tables.content_of(out, "annotations") == tables.content_of(tmp_path / "annotate", "annotations")
    # Once more, from what came in, by the command that made it.
    again = tmp_path / "again"
    capsys.readouterr()
    assert cli.main(["annotate", "--teacher", f"teacher:{to}", "--out", str(out), "--export", f"hf:{again}"]) == 0
    assert "done already" in capsys.readouterr().out
    assert tables.read(again, "annotations").to_pylist() == rows
    assert (
        card(again)[0]["license"] == "unknown"
        and "| prompt version | not known: recorded elsewhere |" in card(again)[1]
    )


def test_the_card_says_who_made_it_and_how(annotated, tmp_path):
    rows, to = [annotation(number, teacher) for number, teacher in enumerate(PLACES)], tmp_path / "fleas"
    publish.publish(annotated(rows, PLACES[0]), to, "cc-by-4.0")
    head, body = card(to)
    assert head["license"] == "cc-by-4.0" and head["size_categories"] == ["n<1K"]
    for line in (
        "| teacher | big/teacher, a model behind a server, teacher-7b, org/teacher |",
        "| prompt version | 0123456789ab |",
        "| annotations | 4 |",
        "| rejected, not in this data | 3 |",
        "| tokens of the prompts, of the replies | 900, 180 |",
        '| reasoning | "both" |',
        "| distinct | true |",
        "| positives | beir:fiqa#train |",
        'load_dataset("fleas", split="train")',
    ):
        assert line in body
    assert all(f"| `{name}` |" in body for name in tables.SCHEMAS["annotations"].names)
    assert "| language" not in body and "| actors" not in body
    # No address and no place is published.
    whole = b"".join(file.read_bytes() for file in to.rglob("*") if file.is_file())
    assert b"10.0.0.7" not in whole and b"/secret" not in whole and str(tmp_path).encode() not in whole


def test_only_a_dataset_is_replaced(annotated, tmp_path, capsys):
    out, to = annotated([annotation(0)]), tmp_path / "mine"
    publish.publish(out, to)
    publish.publish(annotated([annotation(0), annotation(1)]), to)
    assert len(read_annotations(str(to))[0]) == 2
    (to / "thesis.tex").write_text("all of it")
    for wrong, place, said in ((out, to, "is no dataset that annotate exported"), (to, out, "holds no finished annot")):
        with pytest.raises(publish.BadInput, match=said):
            publish.publish(wrong, place)
    assert (to / "thesis.tex").exists()
    assert cli.main(["annotate", "--teacher", "teacher:x", "--out", "x", "--license", "mit"]) == 2
    assert cli.main(["annotate", "--import", "y", "--teacher", "teacher:x", "--out", "x"]) == 2
    assert "license: mit: stands in the card of a dataset; give --export FOLDER" in capsys.readouterr().err
