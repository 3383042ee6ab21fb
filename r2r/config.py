"""Settings: what a user may set, with types, ranges, defaults, and whether a setting changes the result.

Owns the settings of every stage and the run file (YAML) that holds them together. Each stage reads its own section.

Every setting is of one of these kinds, given here, where it is declared:

- `Field(...)`: a *what*. It changes the result, so it is part of a stage's identity and of every resume key.
- `added(...)`: a *what* that came with a later release. At its default, it leaves the identity of finished work alone.
- `how(...)`: resources, limits, retries, prices, places. Changing it never repeats finished work.
- `source(...)`: names an input. The input's contents count, not its name.

    load_run_file("jobs/configs/demo.yaml", {"distill": {"steps": 50}}).distill.steps    # 50
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from r2r import suites
from r2r.errors import BadInput

Reasoning = Literal["none", "direct", "comparison", "both"]
OrderPosition = Literal["first", "last"]
# Those that Anserini and Pyserini know by these names.
Analyzer = Literal[
    "ar", "bn", "da", "de", "en", "es", "fa", "fi", "fr", "hi", "hu", "id", "it", "ja", "ko", "nl", "no", "pl", "pt",
    "ru", "sv", "te", "tr", "uk", "zh", "none"
]  # fmt: skip
Scores = Literal["labels", "likelihood"]
# As it stands in a prompt: "Write the reasons in German."
Language = Annotated[str, Field(pattern=r"^[^\W\d_]+([ -][^\W\d_]+)*$", max_length=40)]

# vLLM's engine arguments that say where and how fast it runs, not what it answers.
ENGINE_HOW = {
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "distributed_executor_backend",
    "gpu_memory_utilization",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enforce_eager",
    "cpu_offload_gb",
    "download_dir",
    "disable_log_stats",
}


def how(default: Any, **constraints: Any) -> Any:
    """Declare a setting that leaves the result alone. Arguments as for pydantic's `Field`."""
    return Field(default, json_schema_extra={"kind": "how"}, **constraints)


def added(default: Any, **constraints: Any) -> Any:
    """Declare a setting that changes the result, but whose default gives what earlier releases gave without it."""
    return Field(default, json_schema_extra={"kind": "what", "added": True}, **constraints)


def source(default: Any = ..., **constraints: Any) -> Any:
    """Declare a setting that names an input. Arguments as for pydantic's `Field`."""
    return Field(default, json_schema_extra={"kind": "source"}, **constraints)


def _words(value: Any) -> Any:
    """Split text at spaces and commas, except inside parentheses: "nDCG@10 SetF(beta=0.5,rel=2)" is two words."""
    text = ",".join(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value
    return re.findall(r"[^\s,(]+(?:\([^)]*\))?[^\s,(]*", text) if isinstance(text, str) else value


Words = Annotated[list[str], BeforeValidator(_words)]


class Section(BaseModel):
    """The settings of one stage. Unknown names are errors, and so are empty texts."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), str_min_length=1, allow_inf_nan=False
    )

    @classmethod
    def kind(cls, name: str) -> str:
        """Return the kind of a setting: "what", "how" or "source"."""
        extra = cls.model_fields[name].json_schema_extra
        return str(extra["kind"]) if isinstance(extra, dict) and "kind" in extra else "what"

    def what(self) -> dict[str, Any]:
        """Return the settings that change the result, as JSON can hold them."""
        fields = type(self).model_fields
        chosen = {name for name in fields if self.kind(name) == "what" and not self._as_before(name)}
        found = self.model_dump(mode="json", include=chosen)
        if "engine" in found:
            found["engine"] = {name: value for name, value in found["engine"].items() if name not in ENGINE_HOW}
        return found

    def _as_before(self, name: str) -> bool:
        """Return whether an added setting has its default."""
        field = type(self).model_fields[name]
        extra = field.json_schema_extra
        return isinstance(extra, dict) and "added" in extra and getattr(self, name) == field.default


class ModelWorkers(Section):
    """How a stage that runs a model is spread out. The same code serves one CPU and a cluster of GPUs."""

    actors: int = how(1, ge=1, description="engines that run at the same time")
    min_actors: int = how(1, ge=1, description="minimum engines when the cluster is full")
    cpus: float | None = how(
        None, gt=0, description="CPUs that Ray reserves for each engine (default: all, shared out; with GPUs 1)"
    )
    gpus: float = how(0, ge=0, description="GPUs that Ray reserves for each engine")
    in_flight: int = how(64, ge=1, description="rows that an engine works on at the same time")
    engine: dict[str, Any] = Field({}, description='engine arguments of vLLM, as JSON: {"max_model_len": 8192}')

    @model_validator(mode="after")
    def _enough_actors(self) -> ModelWorkers:
        if self.min_actors > self.actors:
            raise ValueError(f"min_actors: {self.min_actors}: more than the {self.actors} actors; give fewer")
        return self


class IndexSettings(Section):
    shards: int = Field(4, ge=1, description="Lucene indexes that the corpus is split into")
    analyzer: Analyzer = added(
        "en", description="how texts and queries become words: by a language, or none, which cuts at white space alone"
    )
    workers: int = how(2, ge=1, description="shards that are built at the same time, one JVM each")
    heap: int = how(1024, ge=64, description="largest Java heap of a worker, in MiB")
    merge: bool = Field(False, description="also write OUT/merged, all shards in one Lucene index, for plain Pyserini")


class RetrieveSettings(Section):
    k: int = Field(100, ge=1, description="candidates per query")
    k1: float = Field(0.9, ge=0, description="BM25's term frequency saturation")
    b: float = Field(0.4, ge=0, le=1, description="BM25's length normalisation")
    remove_query: bool = added(
        False, description="leave out the document whose docid is the query's qid, as BEIR does for all its collections"
    )
    max_missing: float = how(
        0.01, ge=0, le=1, description="largest share of a run's documents that the corpus may lack; more end the job"
    )
    workers: int = how(2, ge=1, description="search workers, one JVM each")
    heap: int = how(1024, ge=64, description="largest Java heap of a worker, in MiB")


class Dialect(Section):
    """How requests to a server are spelled. What is None is found out when a job starts, see `r2r.llm.probe`."""

    response_format: Literal["json_schema", "bare_schema", "json_object", "none"] | None = how(
        None, description="how a reply's form is forced; bare_schema: without lengths; none: by the prompt alone"
    )
    seed: bool | None = how(None, description="send a seed")
    max_tokens: Literal["max_tokens", "max_completion_tokens"] | None = how(
        None, description="name of the limit of a reply"
    )
    temperature: Literal["own", "none", "1"] | None = how(
        None, description="the temperature sent: annotate's own; none or 1 for a model whose temperature is fixed"
    )
    content: Literal["text", "parts"] | None = how(None, description="form of a message: a text, or a list of parts")


class AskSettings(ModelWorkers):
    """How an open model is asked for text: the same for every stage that asks one."""

    temperature: float = Field(0.0, ge=0, description="of the first attempt; each further attempt adds 0.3, up to 1")
    seed: int = Field(0, ge=0, description="seed of shuffles and of the teacher's sampling")
    tokenizer: str | None = Field(None, description="model whose tokenizer counts and cuts a server's prompts")
    server: Dialect = how(Dialect(), description="what a server takes; found out at the start where it is not given")
    batch: bool = how(False, description="send a server files of requests, for its batch API: cheaper, up to a day")
    attempts: int = how(3, ge=1, description="attempts per row before it is rejected")
    max_tokens: int = how(1024, ge=1, description="longest reply, in tokens")
    max_reject_rate: float = how(0.02, ge=0, le=1, description="largest share of rejects; more end the job")
    price_in: float = how(0.0, ge=0, description="price of a million prompt tokens")
    price_out: float = how(0.0, ge=0, description="price of a million reply tokens")
    max_cost: float | None = how(None, gt=0, description="most that the whole job may cost; needs prices")

    @model_validator(mode="after")
    def _priced(self) -> AskSettings:
        if self.max_cost and not self.price_in + self.price_out:
            raise ValueError("max_cost: needs prices to count with; give price_in and price_out, per million tokens")
        return self


class TeacherSettings(AskSettings):
    """How a teacher is asked."""

    teacher: str = source(description="model name or folder, http(s) address of a server, file:DIR#MODEL, or demo")
    tokens_per_second: float | None = how(
        None, gt=0, description="reply tokens per second of an engine, as measured: --dry-run estimates hours from it"
    )


# The losses of `r2r.student.losses`, whose weights are settings of the same names.
LOSSES = ("pairwise", "listwise", "generation", "margin", "lambdarank")


class AnnotateSettings(TeacherSettings):
    teacher: str = source(
        description="model name or folder, http(s) address of a server, file:DIR#MODEL, teacher:FILE, replies:FILE, or "
        "demo"
    )
    passages: int = Field(5, ge=2, le=1000, description="passages of a query that the teacher ranks")
    depth: int = added(
        0, ge=0, description="half of the passages are drawn from below the first ones, down to this rank; 0: none"
    )
    draws: int = added(1, ge=1, le=100, description="draws of passages per query, each an annotation of its own")
    distinct: bool = added(False, description="leave out near-duplicates of passages that rank higher")
    positives: str | None = source(
        None, description="training qrels, a dataset or TREC file: relevant passages that were not drawn are put in"
    )
    window: int = added(20, ge=2, le=20, description="most passages of a call; more are ranked in windows")
    stride: int | None = added(None, ge=1, description="passages that a window moves up (default: half the window)")
    passage_order: Literal["retrieved", "shuffled"] = Field("retrieved", description="order in which it sees them")
    samples: int = Field(1, ge=1, le=20, description="answers per query, each to another passage order, merged")
    reasoning: Reasoning = Field("both", description="which reasons the teacher gives")
    language: Language | None = added(
        None, description="language that it writes the reasons in, such as German (default: the prompt names none)"
    )
    reason_chars: int = Field(600, ge=1, description="longest reason or evidence of a passage, in characters")
    false_evidence: Literal["reject", "drop"] = how(
        "reject", description="evidence that is not in its passage: reject the reply, or drop that evidence"
    )

    @model_validator(mode="after")
    def _drawn(self) -> AnnotateSettings:
        if 0 < self.depth < self.passages:
            raise ValueError(f"depth: {self.depth}: less than the {self.passages} passages; give more, or 0")
        if (self.stride or 1) > self.window:
            raise ValueError(f"stride: {self.stride}: more than the window of {self.window}, so passages are skipped")
        if self.teacher.startswith(("teacher:", "replies:")):
            for name in ("depth", "draws", "distinct", "positives", "window", "stride", "language"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name}: {self.teacher} was recorded without this setting; leave {name} out")
        return self


class QueriesSettings(TeacherSettings):
    n: int = Field(ge=1, description="passages that get a query, drawn from the corpus by the seed")
    examples: str | None = source(
        None, description="JSON lines of query and passage that show the teacher what your queries are like"
    )
    min_chars: int = Field(100, ge=1, description="shortest passage that gets a query, in characters with its title")
    query_chars: int = Field(200, ge=1, description="longest query, in characters")
    found_within: int = Field(20, ge=1, description="keep a query if BM25 finds its passage among the first so many")
    max_tokens: int = how(256, ge=1, description="longest reply, in tokens")


class MakeQueriesSettings(QueriesSettings):
    """The section of a run file, which has every setting of the stage, and is off by default."""

    n: int = Field(0, ge=0, description="passages that get a query, drawn from the corpus by the seed; 0: none is made")
    teacher: str = source(
        "",
        min_length=0,
        description="as for annotate; left out: annotate's teacher, with its engine, workers and prices",
    )

    def stage_settings(self, annotate: AnnotateSettings) -> QueriesSettings:
        """Return the stage's settings. Without a teacher here, those that belong to a teacher are annotate's."""
        values = self.model_dump()
        if not self.teacher:
            shared = {"teacher", "tokenizer", "price_in", "price_out", "tokens_per_second", *ModelWorkers.model_fields}
            values |= {name: getattr(annotate, name) for name in shared - self.model_fields_set | {"teacher"}}
            values["min_actors"] = min(values["min_actors"], values["actors"])
        return QueriesSettings(**values)


class DistillSettings(Section):
    student: str = source(description="model name or folder, or demo")
    reasoning: Reasoning = Field("both", description="which reasons the student learns to write")
    order_position: OrderPosition = Field("first", description="the order in the reply: before or after the reasons")
    labels: Literal["drawn", "first"] = Field(
        "drawn", description="labels of N passages in training: drawn from A to T for each example, or the first N"
    )
    scores: Scores = added(
        "labels",
        description="a passage's score: its label's logit in a window, or the log-likelihood of the query after it",
    )
    steps: int = Field(100, ge=1, description="optimizer steps")
    epochs: float | None = added(None, gt=0, description="passes over the annotations, instead of steps")
    batch: int = Field(2, ge=1, description="examples per forward pass")
    batches: int = Field(2, ge=1, description="batches per optimizer step, shared out among the workers")
    workers: int = how(2, ge=1, description="training processes, at most one per batch of a step")
    min_workers: int = how(1, ge=1, description="minimum processes when the cluster is full")
    gpus: float = how(0, ge=0, description="GPUs of each process; 0 trains on CPUs")
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate, after the warm-up")
    warmup: float = Field(0.05, ge=0, le=1, description="share of the steps that warm the learning rate up")
    decay: Literal["cosine", "linear", "none"] = Field("cosine", description="how the learning rate falls to 0")
    pairwise: float = Field(0.4, ge=0, description="weight of the RankNet loss")
    listwise: float = Field(0.4, ge=0, description="weight of the KL loss")
    generation: float = Field(0.2, ge=0, description="weight of the cross-entropy of the reply's tokens")
    margin: float = added(0.0, ge=0, description="weight of the hinge loss on pairs")
    lambdarank: float = added(0.0, ge=0, description="weight of the LambdaRank loss: pairs by what they change in nDCG")
    tau: float = Field(1.0, gt=0, description="temperature of the teacher's distribution softmax(-rank / tau)")
    method: Literal["lora", "qlora", "full"] = added(
        "lora", description="what is trained: an adapter; an adapter of the student in 4 bits; or all weights"
    )
    lora_rank: int = Field(16, ge=1, description="rank of the adapter")
    lora_alpha: int = Field(32, ge=1, description="the adapter is scaled by lora_alpha / lora_rank")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout of the adapter's input")
    lora_targets: Words = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        description="linear layers that get an adapter",
    )
    zero_stage: Literal[0, 2, 3] = how(2, description="DeepSpeed ZeRO stage")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="number type of the model; auto: bfloat16 on GPUs, float32 on CPUs"
    )
    checkpointing: bool = how(False, description="recompute activations instead of keeping them: less memory")
    max_length: int = Field(
        4096, ge=64, description="longest example, prompt and reply, in tokens; never more than the student reads"
    )
    held_out: float = Field(
        0.1, ge=0, lt=1, description="share of the queries held out to choose the step, at most 500"
    )
    evaluate_every: int = Field(50, ge=1, description="steps between measurements on the held-out queries")
    patience: int = added(
        0, ge=0, description="end after so many measurements in a row without a new best; 0 takes all steps"
    )
    save_every: int = how(50, ge=1, description="steps between checkpoints")
    tracker: Literal["mlflow", "wandb"] | None = how(
        None, description="also send each step's figures to MLflow or Weights & Biases, whose own variables say where"
    )
    seed: int = Field(0, ge=0, description="seed of the adapter, the draws and the dropout")

    @model_validator(mode="after")
    def _sound(self) -> DistillSettings:
        if not any(getattr(self, loss) for loss in LOSSES):
            raise ValueError(f"{', '.join(LOSSES)}: all are 0, so there is nothing to learn; give one weight")
        if self.epochs and "steps" in self.model_fields_set:
            raise ValueError(f"epochs: {self.epochs:g}: steps are given, too ({self.steps}); give one of the two")
        if self.patience and not self.held_out:
            raise ValueError(f"patience: {self.patience}: no query is held out to measure on; raise held_out")
        if self.min_workers > self.workers:
            raise ValueError(f"min_workers: {self.min_workers}: more than the {self.workers} workers; give fewer")
        if self.workers > self.batches:
            raise ValueError(
                f"workers: {self.workers}: more than the {self.batches} batches of a step; give fewer workers or more "
                f"batches"
            )
        return self


class RankSettings(Section):
    """How a student ranks a list: the same for `rerank` and `serve`. Where None, the adapter's own record decides."""

    window: int | None = Field(None, ge=2, le=20, description="passages per prompt (default: as trained, else 20)")
    stride: int | None = Field(None, ge=1, description="passages that a sliding window moves up (default: half of it)")
    mode: Literal["score", "generate"] = Field(
        "score", description="rank by the labels' scores at one position, or have the order written out"
    )
    scores: Scores | None = added(
        None, description="score by labels in windows, or each passage by query likelihood (default: as trained)"
    )
    reasoning: Reasoning | None = Field(None, description="reasons of an explanation (default: as trained, else both)")
    language: Language | None = added(
        None, description="language of the student's reasons (default: the prompt names none, as in training)"
    )
    order_position: OrderPosition | None = Field(
        None, description="the order in the reply: before or after the reasons (default: as trained, else first)"
    )
    passes: int = added(
        1,
        ge=1,
        le=20,
        description="times that each window is scored, its passages at other places and labels each time",
    )
    strategy: Literal["parallel", "sliding"] | None = Field(
        None,
        description="lists longer than a window: groups at the same time and a final, or a sliding window (default: "
        "parallel; where a stride is given, sliding)",
    )
    score: Literal["share", "rank"] = Field(
        "share", description="a document's score: the share of the others expected below it, or 1 / rank"
    )
    passage_tokens: int = Field(256, ge=8, description="longest passage in a prompt, in tokens; longer ones are cut")
    reason_chars: int = Field(400, ge=1, description="longest reason or evidence of a passage, in characters")
    merge: bool = Field(False, description="merge the adapter into the student's weights: LoRA is slow on a CPU")

    @property
    def long_lists(self) -> str:
        """The strategy for lists that are longer than a window."""
        return self.strategy or ("sliding" if self.stride else "parallel")

    def what(self) -> dict[str, Any]:
        # By its name, since another strategy may be the default one day.
        return super().what() | {"strategy": self.long_lists}

    @model_validator(mode="after")
    def _windows_overlap(self) -> RankSettings:
        if self.scores == "likelihood" and self.mode == "generate":
            raise ValueError("mode: generate: writes an order; with scores likelihood, rank by score")
        if self.strategy == "parallel" and self.stride:
            raise ValueError(f"stride: {self.stride}: is of a sliding window; leave it out, or set strategy: sliding")
        self.check_windows(self.window or 20, self.stride or 1, self.order_position)
        return self

    def check_windows(self, window: int, stride: int, order_position: OrderPosition | None) -> None:
        """Raise ValueError for what cannot be ranked: with these settings, or with what an adapter's record adds."""
        explain = getattr(self, "explain", 0)
        if stride > window:
            raise ValueError(f"stride: {stride}: more than the window of {window}, so passages are skipped")
        if explain > window:
            raise ValueError(f"explain: {explain}: more than the window of {window} that is explained from")
        if order_position == "last" and self.mode == "generate":
            raise ValueError("mode: generate: writes the order first; with order_position last, rank by scores")


class RerankSettings(ModelWorkers, RankSettings):
    explain: int = Field(0, ge=0, le=20, description="explain this many documents from the top")


class EvaluateSettings(Section):
    measures: Words = Field(
        ["nDCG@10", "RR@10", "AP", "R@100", "Judged@10"], description="measures in ir-measures' spelling"
    )
    baseline: str | None = Field(None, description="run that the others are tested against (default: the first run)")
    caption: str = Field("", min_length=0, description="a line under the table")
    paper_protocol: bool = added(
        False, description="also say what the paper's released code would: 5 documents, queries over .5 only"
    )

    @field_validator("measures")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        return _known_measures(names)


def _known_measures(names: list[str]) -> list[str]:
    """Return the names. Raises ValueError for one that is no measure."""
    from r2r.evaluation.measures import parse_measures

    try:
        parse_measures(names)
    except BadInput as error:
        raise ValueError(str(error)) from None
    return names


class JudgeSettings(AskSettings):
    judge: str | None = source(
        None, description="model that judges the reasons: name, folder or http(s) address of a server"
    )
    planted: float = Field(
        0.2, gt=0, le=1, description="chance that a pair of passages swaps its reasons, to see which measures notice"
    )
    seed: int = Field(0, ge=0, description="seed of planted errors, shuffles, random words, intervals, sheets")
    keep: float | None = added(
        None, ge=0, le=1, description="write OUT/kept: annotations with faults in at most this share of their reasons"
    )
    sheet_queries: int = how(20, ge=1, description="queries on a sheet for people")
    window: int | None = Field(None, ge=2, le=20, description="passages that are ranked again (default: as trained)")
    passage_tokens: int = Field(256, ge=8, description="longest passage in a prompt, in tokens; longer ones are cut")
    merge: bool = Field(False, description="merge the adapter into the student's weights: LoRA is slow on a CPU")


class ExportSettings(Section):
    license: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9.-]*$",
        description="licence of what is exported, as the hub spells it: apache-2.0",
    )
    base: str | None = Field(
        None, description="hub name of the student that was trained, where it was read from a folder"
    )
    merge: bool = Field(
        False, description="merge the adapter into the student's weights: a whole model, that needs torch"
    )
    push: str | None = Field(
        None, description="also upload it, to this repository of the hub, OWNER/NAME; a new one is private"
    )


class ServeSettings(RankSettings):
    host: str = how("127.0.0.1", description="address to listen on")
    port: int = how(8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    name: str | None = how(
        None, min_length=1, description="the student's name in requests and answers (default: its folder's or hub name)"
    )
    api_keys: str | None = how(None, description="file with API keys, one a line; R2R_API_KEYS holds keys themselves")
    allowed_origins: Words = how(
        [], description="sites whose pages may call the server, such as https://search.example.org; * for all"
    )
    max_requests: int = how(128, ge=1, description="requests in flight at a replica; more are answered with 429")
    request_timeout: float = how(120, gt=0, description="seconds that a ranking may take")
    min_replicas: int = how(1, ge=1, description="replicas that are kept without load")
    replicas: int = how(1, ge=1, description="most replicas that autoscaling starts")
    cpus: float = how(1, gt=0, description="CPUs that Ray reserves for a replica")
    gpus: float = how(0, ge=0, description="GPUs that Ray reserves for a replica")
    engine: dict[str, Any] = Field({}, description="engine arguments of vLLM, as JSON")

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, sites: list[str]) -> list[str]:
        for site in sites:
            if site != "*" and not re.fullmatch(r"https?://[^/\s*]+", site):
                raise ValueError(
                    f"allowed_origins: {site}: no origin; give scheme and host, as https://search.example.org, or *"
                )
        return sites

    @model_validator(mode="after")
    def _enough_replicas(self) -> ServeSettings:
        if self.min_replicas > self.replicas:
            raise ValueError(f"min_replicas: {self.min_replicas}: more than the {self.replicas} replicas; give fewer")
        return self


# Rows of the table that a run file makes by itself.
OWN_ROWS = ("bm25", "first-stage", "zero-shot", "student", "teacher", "random", "oracle")
# The collection of the run file itself, among its evaluations; and the average over all of them.
MAIN, AVERAGE = "main", "average"


class Evaluation(Section):
    """One of the collections on which a run file's student is reranked and measured. What is None is as in the run
    file's own sections, or as a suite has it that lists a collection of this name."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of its row and of its folder")
    corpus: str | None = source(None, description="dataset to index, such as beir:DIR")
    queries: str | None = source(None, description="dataset whose queries are reranked and evaluated")
    qrels: str | None = source(None, description="dataset, or TREC qrels file")
    candidates: str | None = source(None, description="replaces corpus and queries: see candidates of the run file")
    run: str | None = source(
        None, description="run of another first stage over corpus and queries, in place of BM25; A+B fuses two"
    )
    k: int | None = Field(None, ge=1, description="candidates per query (default: retrieve.k)")
    analyzer: Analyzer | None = Field(None, description="how texts become words (default: index.analyzer)")
    remove_query: bool | None = Field(
        None, description="leave out the document with the query's id (default: retrieve.remove_query; BEIR: true)"
    )
    language: Language | None = Field(
        None, description="language of the reasons there (default: that of rerank and, for a teacher row, of annotate)"
    )
    measures: Words | None = Field(None, description="in ir-measures' spelling (default: evaluate.measures)")
    runs: dict[str, str] = Field({}, description="further TREC runs to evaluate, by name")
    group: str | None = Field(
        None, description="collections of a group are averaged to one figure first, which counts as one collection"
    )

    @field_validator("measures")
    @classmethod
    def _known(cls, names: list[str] | None) -> list[str] | None:
        return names if names is None else _known_measures(names)

    def check(self) -> None:
        """Raise ValueError if it does not say what is ranked and judged, or says it twice."""
        ranked = (self.corpus is not None and self.queries is not None, self.candidates is not None)
        if ranked not in ((True, False), (False, True)):
            raise ValueError(f"{self.name}: give corpus and queries, or candidates alone")
        if self.candidates is not None and self.run is not None:
            raise ValueError(f"{self.name}: run: candidates are given, too; give one of them")
        if self.qrels is None:
            raise ValueError(f"{self.name}: qrels: missing; nothing can be measured without judgements")
        ready = self.candidates is not None and not self.candidates.startswith("run:")
        # What the setting says is settled already.
        settled = [*(["analyzer"] if self.candidates or self.run else []), *(["k", "remove_query"] if ready else [])]
        for name in settled:
            if getattr(self, name) is not None:
                raise ValueError(f"{self.name}: {name}: another first stage made the candidates; leave {name} out")
        for name in self.runs:
            if name in OWN_ROWS:
                raise ValueError(f"{self.name}: runs: {name}: that row is made here; give the run another name")


class Quoted(Section):
    """Figures that others have published, which stand apart from those that are measured."""

    system: str = Field(min_length=1, description="name of the system")
    source: str = Field(min_length=1, description="where the figures stand, such as a paper's table")
    measure: str | None = Field(None, description="which measure they are of (default: the first of evaluate.measures)")
    figures: dict[str, float] = Field(description="collection, or suite, and its figure, from 0 to 1")

    @field_validator("figures")
    @classmethod
    def _shares(cls, figures: dict[str, float]) -> dict[str, float]:
        for name, figure in figures.items():
            if not 0 <= figure <= 1:
                raise ValueError(f"{name}: {figure}: write figures from 0 to 1, such as 0.738")
        return figures


class RunFile(Section):
    """One experiment: what to read, and the settings of each stage. `train_queries` are annotated and learned from;
    `queries` are reranked and evaluated. `candidates` replaces corpus and queries where a list is at hand.
    `evaluations` and `suite` are further collections for the same student; with them, `qrels` may be missing."""

    out: str = how(..., description="folder of the run")
    corpus: str | None = source(None, description="dataset to index, such as beir:DIR")
    queries: str | None = source(None, description="dataset whose queries are reranked and evaluated")
    train_queries: str | None = source(None, description="dataset whose queries the teacher annotates")
    candidates: str | None = source(None, description="folder that retrieve wrote, run:FILE#..., or rankgpt:FILE")
    qrels: str | None = source(None, description="dataset, or TREC qrels file; needed without evaluations and suite")
    index: IndexSettings = IndexSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    make_queries: MakeQueriesSettings = MakeQueriesSettings()
    annotate: AnnotateSettings
    distill: DistillSettings
    rerank: RerankSettings = RerankSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    judge: JudgeSettings = JudgeSettings()
    judge_reasons: bool = Field(False, description="also judge the student's reasons, beside those of teacher_row")
    zero_shot: bool = Field(False, description="also rerank with the student as it was: the row to beat")
    teacher_row: bool = Field(False, description="also have the teacher order the evaluated candidates: the goal")
    runs: dict[str, str] = Field({}, description="further TREC runs to evaluate, by name")
    evaluations: list[Evaluation] = Field([], description="further collections that the student is measured on")
    suite: Words = Field([], description=f"suites of collections to measure it on: {', '.join(suites.SUITES)}")
    data: str | None = source(None, description="folder with BEIR's collections for suite (default: ir_datasets)")
    without: Words = Field([], description="collections of the suite to leave out; its average is not shown then")
    quoted: list[Quoted] = Field([], description="published figures, shown apart in the report over all collections")

    def collections(self) -> list[Evaluation]:
        """Return the evaluations besides the run file's own collection: those of the suites, then the others.

        An evaluation with the name of a suite's collection adds to what the suite says of it, and wins.
        """
        own, found = {one.name: one for one in self.evaluations}, {}
        for suite in self.suite:
            for name, values in suites.members(suite, self.data).items():
                more = own[name].model_dump(exclude_unset=True) if name in own else {}
                unused = ("corpus", "queries", "remove_query") if "candidates" in more else ()
                kept = {key: value for key, value in values.items() if key not in unused}
                if not {name, values.get("group")} & set(self.without):
                    found[name] = Evaluation(**{"name": name, **kept, **more})
        return list((found | {name: one for name, one in own.items() if name not in found}).values())

    def averages(self) -> dict[str, list[str]]:
        """Return what is averaged: groups of collections first, then suites, whose members may be groups, then all."""
        found: dict[str, list[str]] = {}
        for suite in self.suite:
            for name, values in suites.members(suite, self.data).items():
                if "group" in values and name not in found.get(values["group"], []):
                    found.setdefault(values["group"], []).append(name)
        for one in self.collections():
            if one.group and one.name not in found.get(one.group, []):
                found.setdefault(one.group, []).append(one.name)
        all_of = [MAIN] * (self.qrels is not None)
        all_of += dict.fromkeys(one.group or one.name for one in self.collections())
        found |= {suite: list(suites.SUITES[suite]) for suite in self.suite}
        rest = set(all_of).difference(*(suites.SUITES[suite] for suite in self.suite))
        return found | {AVERAGE: all_of} if rest and len(all_of) > 1 else found

    def left_out(self) -> list[str]:
        """Return the collections of suites that `without` names, itself or by their group."""
        every = {name: values for suite in self.suite for name, values in suites.members(suite, self.data).items()}
        return [name for name, values in every.items() if {name, values.get("group")} & set(self.without)]

    @model_validator(mode="after")
    def _sound(self) -> RunFile:
        self._check_evaluations()
        given = (self.corpus is not None and self.queries is not None, self.candidates is not None)
        if self.qrels is not None and given not in ((True, False), (False, True)):
            raise ValueError("corpus, queries, candidates: give corpus and queries, or candidates alone")
        teacher = self.annotate.teacher
        recorded = teacher.startswith("teacher:")
        self._check_made_queries()
        if self.train_queries is None and not self.make_queries.n and not recorded:
            raise ValueError(
                "train_queries: missing; the teacher annotates them: name some, or have them made (make_queries.n); "
                "only teacher:FILE needs none"
            )
        if self.train_queries is not None and recorded:
            raise ValueError(f"train_queries: {teacher} brings its own queries; leave train_queries out")
        if self.teacher_row and teacher.startswith(("teacher:", "replies:")):
            raise ValueError(f"teacher_row: {teacher} cannot be asked about other queries; leave teacher_row out")
        if self.train_queries is not None and self.corpus is None:
            raise ValueError("train_queries: needs a corpus to retrieve from")
        if self.annotate.passages > 20:
            raise ValueError(
                f"annotate.passages: {self.annotate.passages}: distill learns from 20 a query at most; give 20 or fewer"
            )
        if self.annotate.depth > self.retrieve.k:
            found = f"retrieve finds only {self.retrieve.k} a query"
            raise ValueError(f"annotate.depth: {self.annotate.depth}: {found}; raise retrieve.k, or lower the depth")
        self._check_reasons()
        if self.judge_reasons and not self.rerank.explain:
            raise ValueError("judge_reasons: rerank.explain is 0, so there are no reasons to judge; explain some")
        for name in self.runs:
            if name in OWN_ROWS:
                raise ValueError(f"runs: {name}: a run file makes the row {name} itself; give the run another name")
        return self

    def _check_evaluations(self) -> None:
        """Raise ValueError if there is nothing to measure on, or an evaluation is not sound."""
        for suite in self.suite:
            if suite not in suites.SUITES:
                raise ValueError(f"suite: {suite}: no such suite; known here: {', '.join(suites.SUITES)}")
        listed = {name for suite in self.suite for name in suites.members(suite, self.data)}
        groups = set(self.averages()) - set(self.suite)
        for name in self.without:
            if name not in listed | groups:
                raise ValueError(f"without: {name}: in no suite here; leave it out of evaluations itself")
        if self.data is not None and not any(suite.startswith("beir") for suite in self.suite):
            raise ValueError("data: holds BEIR's collections, and no suite of BEIR is asked for; leave data out")
        names = [one.name for one in self.evaluations]
        if again := next((name for place, name in enumerate(names) if name in names[:place]), None):
            raise ValueError(f"evaluations: {again}: given twice; give each collection a name of its own")
        found = self.collections()
        rows = {MAIN, *(one.name for one in found)}
        for name in (MAIN, AVERAGE, *self.averages()):
            if name in (one.name for one in found):
                raise ValueError(f"evaluations: {name}: the name of another row; give the collection another name")
        for one in found:
            if one.name in listed and one.corpus is None and one.candidates is None:
                raise ValueError(
                    f"suite: {one.name}: ir_datasets does not have it; name a folder with BEIR's collections in data, "
                    f"or leave it out: without: {one.name}"
                )
            try:
                one.check()
            except ValueError as error:
                raise ValueError(f"evaluations: {error}") from None
        if self.qrels is None and not found:
            raise ValueError("qrels: missing; nothing can be measured without judgements")
        if self.qrels is None and (self.queries is not None or self.candidates is not None):
            raise ValueError("qrels: missing; queries and candidates of the run file itself are evaluated with them")
        for quoted in self.quoted:
            for name in quoted.figures:
                if name not in rows | listed | self.averages().keys():
                    raise ValueError(f"quoted: {quoted.system}: {name}: no collection here, nor an average of some")
            if quoted.measure not in (None, *self.evaluate.measures):
                raise ValueError(f"quoted: {quoted.system}: {quoted.measure}: not in evaluate.measures; add it there")

    def _check_made_queries(self) -> None:
        """Raise ValueError if train queries are to be made, but cannot be."""
        made, teacher = self.make_queries, self.make_queries.teacher or self.annotate.teacher
        if not made.n:
            return
        if self.train_queries is not None:
            raise ValueError(f"train_queries: {self.train_queries}: make_queries makes them; leave one of the two out")
        if self.annotate.teacher.startswith("teacher:"):
            raise ValueError(f"make_queries: {self.annotate.teacher} brings its own queries; leave make_queries out")
        if teacher.startswith("replies:"):
            raise ValueError(f"make_queries.teacher: {teacher} cannot write queries; name a model or a server")
        if self.corpus is None:
            raise ValueError("make_queries: needs a corpus to draw passages from")

    def _check_reasons(self) -> None:
        """Raise ValueError if a stage needs reasons, or an order, that an earlier one does not give."""
        taught, given, rerank = self.distill.reasoning, self.annotate.reasoning, self.rerank
        teacher = self.annotate.teacher
        if teacher.startswith("replies:"):
            if taught != "none":
                raise ValueError(f"distill.reasoning: {taught}: {teacher} gives an order alone; write none")
            given = "none"
        if not teacher.startswith("teacher:") and given not in ("both", taught) and taught != "none":
            raise ValueError(f"distill.reasoning: {taught}: the teacher gives {given}; raise annotate.reasoning")
        if self.judge.keep is not None and given == "none":
            raise ValueError(f"judge.keep: {self.judge.keep:g}: the teacher gives no reasons to judge; leave keep out")
        if rerank.scores not in (None, self.distill.scores):
            raise ValueError(f"rerank.scores: {rerank.scores}: distill trains {self.distill.scores}; leave it out")
        if rerank.order_position not in (None, self.distill.order_position):
            raise ValueError(f"rerank.order_position: {rerank.order_position}: distill teaches the other; leave it out")
        if rerank.explain and rerank.reasoning not in (None, taught):
            raise ValueError(f"rerank.reasoning: {rerank.reasoning}: distill teaches {taught}; leave it out")
        if rerank.explain and taught == "none":
            raise ValueError(f"rerank.explain: {rerank.explain}: distill teaches no reasons; explain 0, or teach some")


# Settings of 0.1, and what to write now.
RENAMED = {
    "annotate.order": "write passage_order",
    "distill.order": "write order_position",
    "distill.accumulate": "write batches, which counts those of all workers",
    "rerank.order": "write order_position",
}

Settings = TypeVar("Settings", bound=BaseModel)


def validate(model: type[Settings], values: dict[str, Any], where: str) -> Settings:
    """Return `model(**values)`. Raises BadInput with the first wrong setting; `where` names the source."""
    try:
        return model(**values)
    except ValidationError as error:
        # A misspelt setting may be why another one is missing.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    setting = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(_section(model, first["loc"][:-1]).model_fields)
        renamed = f" since 0.2, {RENAMED[setting]}" if setting in RENAMED else ""
        raise BadInput(f"{where}: {setting}: unknown setting{renamed}; known here: {known}")
    if first["type"] == "missing":
        raise BadInput(f"{where}: {setting}: missing setting; add it")
    if first["type"] == "string_too_short":
        raise BadInput(
            f"{where}: {setting}: empty, as an unset variable of the shell is; write a text, or leave it out"
        )
    if first["type"] == "value_error":
        # Our own check, which names its settings itself.
        said = str(first["ctx"]["error"])
        sections = [str(part) for part in first["loc"] if not said.startswith(f"{part}:")]
        raise BadInput(f"{where}: {'.'.join([*sections, said])}")
    message = first["msg"][0].lower() + first["msg"][1:]
    raise BadInput(f"{where}: {setting}: {first['input']!r}: {message}")


def _section(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    for name in path:
        if isinstance(name, int):
            continue
        annotation = model.model_fields[name].annotation
        # Of a list of sections, the place in it follows.
        annotation = next(iter(get_args(annotation)), annotation)
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    return model


def load_run_file(path: str, changes: dict[str, Any] | None = None) -> RunFile:
    """Read and check a run file.

    `path` is a YAML file, or the name of one that ships with the package, such as `demo`. `changes` overrides
    settings: {"distill": {"steps": 50}}. Raises BadInput that names the file and the setting.
    """
    import yaml

    shipped = Path(__file__).parent / "configs" / f"{path}.yaml"
    try:
        with open(shipped if shipped.exists() and not Path(path).exists() else path, encoding="utf-8-sig") as text:
            values = yaml.load(text, _unique_names())
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise BadInput(f"{path}: {said}; a run file such as jobs/configs/demo.yaml is needed") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not UTF-8; a run file is YAML in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" line {mark.line + 1}" if mark else ""
        raise BadInput(f"{path}:{at} is not YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(values, dict):
        raise BadInput(f"{path}: holds no settings; it should be 'name: value' lines")
    return validate(RunFile, overridden(values, changes or {}), path)


@cache
def _unique_names() -> Any:
    """Return YAML's safe loader, which takes the last of two equal names, as one that refuses them."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names: set[str] = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in names:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
                names.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader


def overridden(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return nested `values` with `changes` in place of what they name."""
    merged = dict(values)
    for name, change in changes.items():
        old = values.get(name)
        merged[name] = overridden(old, change) if isinstance(old, dict) and isinstance(change, dict) else change
    return merged
