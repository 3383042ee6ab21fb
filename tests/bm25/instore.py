"""Index and retrieve on a disk and in a store, in one process with a JVM and no Ray. Prints what differs.

python -m tests.bm25.instore FOLDER
"""

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

from r2r import builtin, tables
from r2r.bm25 import index, retrieve
from r2r.config import IndexSettings, RetrieveSettings
from r2r.nodecache import CACHE_VARIABLE
from r2r.places import place
from tests import s3


class Tell:
    @staticmethod
    def remote(*told):
        return True


@contextlib.contextmanager
def progress(*arguments):
    yield Tell


def on_workers(blocks, worker, arguments, *others, **options):
    made = worker(*arguments)
    return [made(block) for block in blocks]


def data(folder: Path) -> None:
    """Write a small part of the built-in world."""
    held = builtin.COLLECTIONS["demo"]
    (folder / "qrels").mkdir(parents=True)
    for name, most in (("corpus.jsonl", 200), ("queries.jsonl", None), ("qrels/test.tsv", 40)):
        (folder / name).write_text("".join((held / name).read_text().splitlines(keepends=True)[:most]))


def made(source: str, out: str) -> list:
    """Run both stages. Return what they left, without what differs by the place or the time."""
    index.build_index(f"beir:{source}", f"{out}/index", IndexSettings(shards=2, merge=True, workers=1))
    # As on another machine.
    shutil.rmtree(Path(os.environ[CACHE_VARIABLE]) / "held", ignore_errors=True)
    retrieve.retrieve(f"{out}/index", f"beir:{source}", f"{out}/retrieve", RetrieveSettings(k=5, workers=1))
    found = [json.loads((place(out) / name / "manifest.json").read_text()) for name in ("index", "retrieve")]
    for manifest in found:
        del manifest["seconds"]
        for put in manifest["inputs"].values():
            del put["source"]
    return [
        *found,
        tables.read(f"{out}/retrieve", "candidates").to_pylist(),
        (place(out) / "retrieve/run.txt").read_text(),
    ]


def main(folder: Path) -> None:
    index.progress, index.on_workers, retrieve.on_workers = progress, on_workers, on_workers
    index._merge = index.merge_shards
    os.environ[CACHE_VARIABLE] = str(folder / "cache")
    data(folder / "data")
    with s3.serving() as store:
        os.environ.update(store.environment())
        for file in (folder / "data").rglob("*.*"):
            made_long_ago = store.put(f"data/{file.relative_to(folder / 'data')}", file.read_bytes())._replace(made=0)
            store.objects[f"data/{file.relative_to(folder / 'data')}"] = made_long_ago
        expected = made(str(folder / "data"), str(folder / "disk"))
        store.faults.late, store.faults.throttle, store.faults.cut = 3600, 0.03, 0.03
        found = made("s3://bucket/data", "s3://bucket/runs/x")
        # Ends without the JVM's own clean-up.
        print(json.dumps([found[at] == one for at, one in enumerate(expected)]), store.asked["503"], flush=True)
        os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
