"""`hf:`: datasets in the hub's Parquet layout, in a local folder and on a fake hub, read by the real client."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r2r import datasets, tables
from r2r.errors import BadInput
from tests.hub.made import ANNOTATION

DOCUMENTS = [{"_id": f"d{number}", "title": "", "text": f"About {number}. " + "x" * 200} for number in range(3000)]
README = """---
configs:
- config_name: texts
  data_files:
  - split: all
    path: passages/*.parquet
- config_name: default
  data_files: judged.parquet
---
"""


def write(folder, name, rows, **options):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / name, **options)


@pytest.fixture
def folder(tmp_path):
    """A dataset as `push_to_hub` lays it out, with several configurations."""
    found = tmp_path / "fiqa"
    half = len(DOCUMENTS) // 2
    write(found, "corpus/corpus-00000-of-00002.parquet", DOCUMENTS[:half], row_group_size=100)
    write(found, "corpus/corpus-00001-of-00002.parquet", DOCUMENTS[half:], row_group_size=100)
    write(
        found,
        "queries/queries-00000-of-00001.parquet",
        [{"_id": "q1", "text": "how long"}, {"_id": "q2", "text": "who"}],
    )
    write(found, "data/test-00000-of-00001.parquet", [{"query-id": "q1", "corpus-id": "d7", "score": 1.0}])
    write(found, "data/train-00000-of-00001.parquet", [{"query-id": "q2", "corpus-id": "d9", "score": 2}])
    (found / "README.md").write_text("---\nlicense: mit\n---\nNo configs here.\n")
    return found


def publish(hub, folder):
    """Put the files of the folder on the hub, as org/fiqa."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    hub.repositories["datasets", "org/fiqa"] = {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in files
    }


@pytest.fixture(params=["local", "hub"])
def source(request, folder):
    """The dataset string of the folder, or of the same files on a hub."""
    if request.param == "local":
        return f"hf:{folder}"
    publish(request.getfixturevalue("hub"), folder)
    return "hf:org/fiqa"


def test_a_collection_is_read_by_the_names_of_its_files(source):
    parts = datasets.corpus_parts(f"{source}#corpus/corpus,docid=_id", 3)
    found = [document for part in parts for _, document in part.read()]
    assert [one.docid for one in found] == [one["_id"] for one in DOCUMENTS]
    assert found[7].text == DOCUMENTS[7]["text"]
    queries = datasets.read_queries(f"{source}#queries,qid=_id,query=text").to_pylist()
    assert queries == [{"qid": "q1", "query": "how long"}, {"qid": "q2", "query": "who"}]
    names = "qid=query-id,docid=corpus-id,relevance=score"
    assert datasets.read_qrels(f"{source}#test,{names}").to_pylist() == [{"qid": "q1", "docid": "d7", "relevance": 1}]
    assert datasets.read_qrels(f"{source}#default/train,{names}").to_pylist()[0]["relevance"] == 2
    datasets.check(f"{source}#test,{names}", "qrels")


def test_a_part_reads_its_own_files_only(hub, folder):
    publish(hub, folder)
    (_, second) = datasets.corpus_parts("hf:org/fiqa#corpus,docid=_id", 2)
    hub.asked.clear()
    assert [document.docid for _, document in second.read()] == [one["_id"] for one in DOCUMENTS[1500:]]
    read = {one.rpartition("/")[2] for one in hub.asked if one.startswith("GET /datasets/")}
    assert read == {"corpus-00001-of-00002.parquet"}
    # Of the commit that the job has begun with, whatever comes after it.
    commit = hub.revision(("datasets", "org/fiqa"))
    assert all(f"/{commit}/" in one for one in hub.asked if "corpus-0000" in one)


def test_the_card_says_which_files_are_which(source, folder, request):
    write(folder, "passages/x.parquet", [{"docid": "a", "text": "b"}])
    write(folder, "judged.parquet", [{"qid": "q", "docid": "a", "relevance": 1}])
    (folder / "README.md").write_text(README)
    if source.startswith("hf:org"):
        held = request.getfixturevalue("hub").repositories["datasets", "org/fiqa"]
        held |= {name: (folder / name).read_bytes() for name in ("README.md", "passages/x.parquet", "judged.parquet")}
    (part,) = datasets.corpus_parts(f"{source}#texts/all", 1)
    assert [document.docid for _, document in part.read()] == ["a"]
    assert datasets.read_qrels(f"{source}#default/train").num_rows == 1
    with pytest.raises(BadInput, match=r"has no split #corpus: #texts/all, #default/train$"):
        datasets.check(f"{source}#corpus", "corpus")


def test_annotations(hub, tmp_path):
    tables.write([ANNOTATION], tmp_path, "annotations")
    (file,) = (tmp_path / "annotations").glob("*.parquet")
    hub.repositories["datasets", "me/reasons"] = {"data/train-00000-of-00001.parquet": file.read_bytes()}
    rows, rejects = datasets.read_annotations("hf:me/reasons")
    assert rows == [ANNOTATION | {"agreement": None}] and rejects == []
    write(tmp_path, "bad/train.parquet", [{"qid": "q"}])
    with pytest.raises(BadInput, match=r"train\.parquet: column query is missing"):
        datasets.read_annotations(f"hf:{tmp_path}/bad")


def test_a_commit_is_what_identifies_a_dataset_of_the_hub(hub, folder):
    from r2r.datasets import hf

    file = (folder / "data/test-00000-of-00001.parquet").read_bytes()
    held = hub.repositories["datasets", "org/x"] = {"test.parquet": file}
    first = datasets.fingerprint("hf:org/x", "qrels")
    assert first == f"hf:org/x@{hub.revision(('datasets', 'org/x'))}#"
    held["test.parquet"] += b" "
    # A job that has begun goes on with what it began with.
    assert datasets.fingerprint("hf:org/x", "qrels") == first
    hf._on_hub.cache_clear()
    assert datasets.fingerprint("hf:org/x", "qrels") != first
    local = [datasets.fingerprint(f"hf:{folder}#{split}", "qrels") for split in ("test", "train")]
    assert len(set(local)) == 2


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            "hf:org/fiqa",
            "has several splits; name one: #corpus/corpus, #default/test, #default/train, #queries/queries",
        ),
        ("hf:org/fiqa#dev", "has no split #dev: #corpus/corpus"),
        ("hf:org/none", "hf:org/none: the hub has none of this name"),
        ("hf:nowhere", "hf:nowhere: no such folder, and no name of a dataset on the hub"),
        ("hf:org/fiqa#corpus", 'has no "docid"; it has _id, title, text'),
    ],
)
def test_mistakes(spec, said, hub, folder):
    publish(hub, folder)
    with pytest.raises(BadInput) as error:
        datasets.corpus_parts(spec, 2)
    assert said in str(error.value)


def test_without_a_network(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match=r"hf:org/x: HF_HUB_OFFLINE is set"):
        datasets.check("hf:org/x", "queries")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BadInput, match=r"hf:org/x: the hub cannot be reached: .*; try again with a network"):
        datasets.check("hf:org/x", "queries")


def test_a_hub_that_dies_in_the_middle_is_one_line(hub, folder):
    publish(hub, folder)
    (part,) = datasets.corpus_parts("hf:org/fiqa#corpus,docid=_id", 1)
    hub.fail = 404
    with pytest.raises(BadInput, match=r"^hf:org/fiqa: the hub answers 404"):
        list(part.read())


def test_a_card_that_cannot_be_read_is_told(tmp_path):
    write(tmp_path, "data/train.parquet", [{"qid": "q"}])
    (tmp_path / "README.md").write_text("---\nconfigs:\n- data_files:\n  - split: train\n---\n")
    with pytest.raises(BadInput, match=r"README\.md: its configs cannot be read"):
        datasets.check(f"hf:{tmp_path}", "qrels")
    (tmp_path / "README.md").write_text("---\n: : broken\n- x\n---\n")
    datasets.check(f"hf:{tmp_path}", "qrels")


def test_a_folder_without_parquet_says_where_the_hub_keeps_it(tmp_path):
    (tmp_path / "corpus.jsonl").write_text("{}")
    with pytest.raises(BadInput, match=r"holds no \.parquet file; .*refs/convert/parquet"):
        datasets.check(f"hf:{tmp_path}", "corpus")
