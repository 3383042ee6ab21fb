"""Settings: what a user may set, with types, ranges and defaults.

Owns the settings of every stage, the run file (YAML) that holds them together, and the error for a user's mistake.
Does not own what a setting does: each stage reads its own section and no other.

    load_run_file("jobs/configs/demo.yaml").distill.steps
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r2r.errors import BadInput

Reasoning = Literal["none", "direct", "comparison", "both"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Workers(Section):
    """How a stage that runs a model is spread out. The same code serves one CPU and a node of GPUs."""

    actors: int = Field(1, ge=1, description="engines that run at the same time")
    min_actors: int = Field(1, ge=1, description="engines to go on with, where the cluster has no room for more")
    cpus: float = Field(1, gt=0, description="CPUs that Ray reserves for each engine")
    gpus: float = Field(0, ge=0, description="GPUs that Ray reserves for each engine")
    in_flight: int = Field(64, ge=1, description="rows that an engine works on at the same time")
    engine: dict[str, Any] = Field(
        default_factory=dict, description='engine arguments of vLLM, as JSON: {"tensor_parallel_size": 4}'
    )


class IndexSettings(Section):
    shards: int = Field(4, ge=1, description="Lucene indexes that the corpus is split into")
    workers: int = Field(2, ge=1, description="shards that are built at the same time, one JVM each")
    heap: int = Field(1024, ge=64, description="largest Java heap of a worker, in MiB")
    merge: bool = Field(False, description="also write OUT/merged, all shards in one Lucene index, for plain Pyserini")


class RetrieveSettings(Section):
    k: int = Field(100, ge=1, description="candidates per query")
    k1: float = Field(0.9, ge=0, description="BM25's term frequency saturation")
    b: float = Field(0.4, ge=0, le=1, description="BM25's length normalisation")
    workers: int = Field(2, ge=1, description="search workers, one JVM each")
    heap: int = Field(1024, ge=64, description="largest Java heap of a worker, in MiB")


class AnnotateSettings(Workers):
    teacher: str = Field(description="model name or folder, http(s) address of a server, teacher:FILE, or demo")
    passages: int = Field(5, ge=2, le=20, description="passages that the teacher sees in a call: the first candidates")
    order: Literal["retrieved", "shuffled"] = Field("retrieved", description="in which it sees them")
    samples: int = Field(1, ge=1, le=20, description="orders that are asked for and merged, the further ones shuffled")
    reasoning: Reasoning = Field("both", description="which reasons the teacher is asked for")
    false_evidence: Literal["reject", "drop"] = Field(
        "reject", description="what happens to a reply whose evidence is not in its passage, or to that evidence alone"
    )
    max_reject_rate: float = Field(0.02, ge=0, le=1, description="largest share of rejects; more end the job")
    attempts: int = Field(3, ge=1, description="how often a row is asked before it is rejected")
    temperature: float = Field(0.0, ge=0, description="of the first attempt; each further one adds 0.3, up to 1")
    max_tokens: int = Field(1024, ge=1, description="longest reply, in tokens")
    reason_chars: int = Field(600, ge=1, description="longest reason or evidence of a passage, in characters")
    seed: int = Field(0, ge=0)
    tokenizer: str | None = Field(None, description="model by whose tokenizer a server's prompts are counted and cut")
    price_in: float = Field(0, ge=0, description="money for a million tokens of prompts")
    price_out: float = Field(0, ge=0, description="money for a million tokens of replies")
    max_cost: float | None = Field(None, gt=0, description="money that the whole job may take at the most")
    tokens_per_second: float | None = Field(
        None, gt=0, description="of replies, that an engine was measured to write: for the GPU hours of --dry-run"
    )


class DistillSettings(Section):
    student: str = Field(description="model name or folder, or demo")
    reasoning: Reasoning = Field("both", description="which reasons the student learns to write")
    order: Literal["first", "last"] = Field(
        "first", description="where the order stands in the reply: before the reasons, or after them"
    )
    steps: int = Field(100, ge=1, description="optimizer steps")
    workers: int = Field(2, ge=1, description="training processes")
    min_workers: int = Field(1, ge=1, description="processes to go on with, where the cluster has no room for more")
    gpus: float = Field(0, ge=0, description="GPUs of each process; 0 trains on CPUs")
    batch: int = Field(2, ge=1, description="examples per process and forward pass")
    accumulate: int = Field(1, ge=1, description="forward passes of each of the workers per optimizer step")
    learning_rate: float = Field(1e-4, gt=0, description="the highest, after the warm-up")
    warmup: float = Field(0.05, ge=0, le=1, description="share of the steps in which the learning rate rises to it")
    decay: Literal["cosine", "linear", "none"] = Field("cosine", description="how it falls to 0 in the other steps")
    pairwise: float = Field(0.4, ge=0, description="weight of the RankNet loss")
    listwise: float = Field(0.4, ge=0, description="weight of the KL loss")
    generation: float = Field(0.2, ge=0, description="weight of the loss on the reply's tokens")
    tau: float = Field(1.0, gt=0, description="temperature of the teacher's distribution softmax(-rank / tau)")
    lora_rank: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    lora_targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        description="names of the linear layers that get an adapter",
    )
    zero_stage: Literal[0, 2, 3] = Field(2, description="DeepSpeed ZeRO stage")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="numbers that the model calculates with; auto: bfloat16 on GPUs, float32 on CPUs"
    )
    checkpointing: bool = Field(False, description="calculate activations a second time instead of keeping them")
    max_length: int = Field(4096, ge=64, description="longest example, prompt and reply, in tokens")
    held_out: float = Field(
        0.1, ge=0, lt=1, description="share of the queries that is not learned from but measured on, 500 at the most"
    )
    evaluate_every: int = Field(50, ge=1, description="steps between two measurements on the held-out queries")
    save_every: int = Field(50, ge=1, description="steps between two checkpoints")
    seed: int = Field(0, ge=0)


class RerankSettings(Workers):
    window: int = Field(20, ge=2, le=20, description="passages in a prompt")
    stride: int = Field(10, ge=1, description="how far a window moves up the list")
    mode: Literal["score", "generate"] = Field(
        "score", description="rank a window by its labels' scores at one position, or have the order written out"
    )
    explain: int = Field(0, ge=0, le=20, description="explain this many documents from the top")
    reasoning: Reasoning = Field("both", description="which reasons an explanation holds")
    order: Literal["first", "last"] = Field(
        "first", description="as the student was distilled: its order before its reasons, or after those of a window"
    )
    passage_tokens: int = Field(256, ge=8, description="a longer passage is cut to this many tokens")
    reason_chars: int = Field(400, ge=1, description="longest reason or evidence of a passage, in characters")
    merge: bool = Field(
        False,
        description="add the adapter to the student's weights before vLLM loads them: LoRA is slow on a CPU",
    )


class EvaluateSettings(Section):
    measures: list[str] = Field(
        ["nDCG@10", "RR@10", "AP", "R@100"], description="measures in ir-measures' spelling, separated by spaces"
    )
    caption: str = Field("", description="a line that stands under the table")


class ServeSettings(Section):
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    replicas: int = Field(1, ge=1, description="most replicas that autoscaling starts")
    cpus: float = Field(1, gt=0, description="CPUs that Ray reserves for a replica")
    gpus: float = Field(0, ge=0, description="GPUs that Ray reserves for a replica")
    engine: dict[str, Any] = Field(default_factory=dict, description="engine arguments of vLLM, as JSON")


class RunFile(Section):
    """One experiment: what to read, and the settings of each stage. `train_queries` are annotated and learned from;
    `queries` are reranked and evaluated. `candidates` stands in for corpus and queries where a list is at hand."""

    out: str = Field(description="folder of the run")
    corpus: str | None = None
    queries: str | None = None
    train_queries: str | None = None
    candidates: str | None = None
    qrels: str
    index: IndexSettings = IndexSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    annotate: AnnotateSettings
    distill: DistillSettings
    rerank: RerankSettings = RerankSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    zero_shot: bool = Field(
        False, description="also rerank with the student as it was, the row for distillation to beat"
    )
    teacher_row: bool = Field(
        False,
        description="also have the teacher order the candidates that are evaluated: the row that the student is "
        "measured against",
    )
    runs: dict[str, str] = Field(default_factory=dict, description="further TREC runs to evaluate, by name")


def validate(model: type[Section], values: dict, where: str) -> Any:
    """Return `model(**values)`; raise BadInput with the first wrong setting. `where` names the source."""
    try:
        return model(**values)
    except ValidationError as error:
        # A misspelt setting may be why another one is missing.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        setting = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            section = _section(model, first["loc"][:-1])
            known = ", ".join(section.model_fields)
            raise BadInput(f"{where}: {setting}: unknown setting; known here: {known}") from None
        if first["type"] == "missing":
            raise BadInput(f"{where}: {setting}: missing setting; add it") from None
        message = first["msg"][0].lower() + first["msg"][1:]
        raise BadInput(f"{where}: {setting}: {first['input']!r}: {message}") from None


def _section(model: type[Section], path: tuple) -> type[Section]:
    for name in path:
        model = model.model_fields[name].annotation
    return model


def load_run_file(path: str) -> RunFile:
    """Read and check a run file. Raises BadInput naming the file and the setting."""
    import yaml

    try:
        text = Path(path).read_text()
    except OSError as error:
        raise BadInput(
            f"{path}: {error.strerror.lower()}; a run file such as jobs/configs/demo.yaml is needed"
        ) from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(error, "problem_mark", None)
        at = f" line {line.line + 1}" if line else ""
        raise BadInput(f"{path}:{at} is not YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(values, dict):
        raise BadInput(f"{path}: holds no settings; it should be 'name: value' lines")
    run = validate(RunFile, values, path)
    given = (run.corpus is not None and run.queries is not None, run.candidates is not None)
    if given not in ((True, False), (False, True)):
        raise BadInput(f"{path}: corpus, queries, candidates: give corpus and queries, or candidates alone")
    recorded = run.annotate.teacher.startswith("teacher:")
    if run.train_queries is None and not recorded:
        raise BadInput(f"{path}: train_queries: missing; the teacher annotates them (only teacher:FILE needs none)")
    if run.train_queries is not None and recorded:
        raise BadInput(f"{path}: train_queries: {run.annotate.teacher} brings its own queries; leave train_queries out")
    if run.teacher_row and recorded:
        raise BadInput(
            f"{path}: teacher_row: {run.annotate.teacher} cannot be asked about other queries; leave teacher_row out"
        )
    if run.train_queries is not None and run.corpus is None:
        raise BadInput(f"{path}: train_queries: needs a corpus to retrieve from")
    return run
