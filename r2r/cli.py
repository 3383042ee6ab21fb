"""The command line: `r2r STAGE ...`, which `jobs/STAGE.py` runs as well.

Owns the flags, made from the settings in `config`, and how errors are told. Does not own any work:
each command calls the function of its stage.

    main(["evaluate", "--qrels", "qrels.txt", "--run", "bm25=run.txt", "--out", "runs/compare"])
"""

from __future__ import annotations

import argparse
import json
import sys
import typing
from collections.abc import Callable, Iterator

from r2r import config
from r2r.config import Section
from r2r.errors import BadInput, Stopped


def _index(args: argparse.Namespace, settings: config.IndexSettings) -> None:
    from r2r.bm25.index import build_index

    build_index(args.corpus, args.out, settings)


def _retrieve(args: argparse.Namespace, settings: config.RetrieveSettings) -> None:
    from r2r.bm25.retrieve import retrieve

    retrieve(args.index, args.queries, args.out, settings)


def _annotate(args: argparse.Namespace, settings: config.AnnotateSettings) -> None:
    from r2r.teacher import annotate

    if args.show_prompt:
        annotate.show_prompt(args.candidates, settings)
    elif args.dry_run:
        annotate.dry_run(args.candidates, args.out, settings)
    elif args.out is None:
        raise BadInput("out: missing; only --show-prompt and --dry-run need no folder")
    else:
        annotate.annotate(args.candidates, args.out, settings)


def _distill(args: argparse.Namespace, settings: config.DistillSettings) -> None:
    from r2r.student.distill import distill

    distill(args.annotations, args.out, settings)


def _rerank(args: argparse.Namespace, settings: config.RerankSettings) -> None:
    from r2r.student.rerank import rerank

    rerank(args.candidates, args.student, args.adapter, args.out, settings)


def _evaluate(args: argparse.Namespace, settings: config.EvaluateSettings) -> None:
    from r2r.evaluation.evaluate import evaluate, parse_runs

    evaluate(args.qrels, parse_runs(args.run), args.out, settings, args.candidates, args.rankings, args.distill)


def _serve(args: argparse.Namespace, settings: config.ServeSettings) -> None:
    from r2r.serving.app import serve

    serve(args.student, args.adapter, settings)


def _run(args: argparse.Namespace, settings: None) -> None:
    from r2r.pipeline import run

    run(args.file, args.out)


def _flags(stage: argparse.ArgumentParser, **flags: str) -> None:
    """Add required flags; one whose help begins with "optional" may be left out."""
    for name, text in flags.items():
        stage.add_argument(f"--{name}", required=not text.startswith("optional"), help=text, metavar=name.upper())


_ADAPTER = "optional: PEFT folder, or distill's; without it the student ranks as it is"
_OUT = "the stage's folder"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="r2r", description="Reason-to-Rank on Ray: distil a teacher into a student that reranks.")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")

    def stage(name: str, does: str, call: Callable, settings: type[Section] | None = None) -> argparse.ArgumentParser:
        added = stages.add_parser(name, help=does, description=does)
        added.set_defaults(call=call, settings=settings)
        return added

    run = stage("run", "every stage of a run file", _run)
    run.add_argument("file", help="run file, such as jobs/configs/demo.yaml")
    run.add_argument("--out", help="folder of the run, instead of the one in the file")

    index = stage("index", "Lucene shards from a corpus", _index, config.IndexSettings)
    _flags(index, corpus="dataset, such as beir:DIR", out=_OUT)

    retrieve = stage("retrieve", "BM25 candidates and a TREC run", _retrieve, config.RetrieveSettings)
    _flags(retrieve, index="folder that index wrote", queries="dataset, such as beir:DIR", out=_OUT)

    annotate = stage("annotate", "a teacher's order and reasons", _annotate, config.AnnotateSettings)
    _flags(annotate, candidates="optional with teacher:FILE: folder that retrieve wrote, or rankgpt:FILE")
    _flags(annotate, out="optional with --show-prompt and --dry-run: the stage's folder")
    annotate.add_argument("--dry-run", action="store_true", help="say what would be asked and cost, ask nothing")
    annotate.add_argument("--show-prompt", action="store_true", help="print the first prompt as the model sees it")

    distill = stage("distill", "a LoRA adapter from annotations", _distill, config.DistillSettings)
    _flags(distill, annotations="folder that annotate wrote, or teacher:FILE", out=_OUT)

    rerank = stage("rerank", "the student's order and reasons", _rerank, config.RerankSettings)
    _flags(rerank, candidates="folder that retrieve wrote, or rankgpt:FILE", out=_OUT)
    _flags(rerank, student="model name or folder, or demo", adapter=_ADAPTER)

    evaluate = stage("evaluate", "measures and a report from TREC runs", _evaluate, config.EvaluateSettings)
    _flags(evaluate, qrels="dataset, or a TREC qrels file", out=_OUT)
    evaluate.add_argument(
        "--run",
        action="append",
        required=True,
        metavar="NAME=FILE",
        help="TREC run or, after the first, a folder that annotate wrote; may be repeated",
    )
    _flags(evaluate, candidates="optional: folder with candidates, for the report's passages")
    _flags(evaluate, rankings="optional: folder that rerank wrote, for the report's reasons")
    _flags(evaluate, distill="optional: folder that distill wrote, for the report's training curves")

    serve = stage("serve", "the student behind POST /v1/rerank", _serve, config.ServeSettings)
    _flags(serve, student="model name or folder, or demo", adapter=_ADAPTER)

    for added in stages.choices.values():
        if model := added.get_default("settings"):
            for name, field in model.model_fields.items():
                _setting(added, name, field)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        # argparse would print the usage as well; a mistake gets one line.
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def _setting(stage: argparse.ArgumentParser, name: str, field) -> None:
    """Add one setting as a flag. Left out, it has its default; pydantic checks what is given."""
    kind = typing.get_origin(field.annotation) or field.annotation
    text = field.description or ""
    if field.is_required():
        default = ""
    else:
        shown = field.get_default(call_default_factory=True)
        default = " ".join(shown) if isinstance(shown, list) else json.dumps(shown) if kind is dict else str(shown)
        default = "" if shown is None else default
    stage.add_argument(
        "--" + name.replace("_", "-"),
        dest=f"setting_{name}",
        required=field.is_required(),
        type={list: str.split, dict: _json}.get(kind, str),
        action=argparse.BooleanOptionalAction if kind is bool else None,
        help=(text + f" (default: {default})" * bool(default)).strip().replace("%", "%%"),
        metavar=name.upper(),
        default=argparse.SUPPRESS,
    )


def _json(text: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object; write {{"name": value}}')
    return value


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status: 0; 2 for a user's mistake, and 3 for a job that its settings stopped,
    either told in one line."""
    args = _parser().parse_args(arguments)
    try:
        settings = None
        if args.settings:
            given = {name[8:]: value for name, value in vars(args).items() if name.startswith("setting_")}
            settings = config.validate(args.settings, given, f"r2r {args.stage}")
        args.call(args, settings)
    except Stopped as stopped:
        print(f"r2r: {stopped}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("r2r: interrupted; the same command goes on where it can", file=sys.stderr)
        return 130
    except Exception as error:
        mistake = next((one for one in _causes(error) if isinstance(one, BadInput)), None)
        if mistake is None:
            print("r2r: failed; what the workers said lies in /tmp/ray/session_latest/logs", file=sys.stderr)
            raise
        print(f"r2r: {mistake.args[0]}", file=sys.stderr)
        return 2
    return 0


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that lies behind it: Ray wraps what a worker raised, in several ways."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        behind = [one.__cause__, one.__context__, getattr(one, "cause", None)]
        behind += getattr(one, "worker_failures", {}).values()
        waiting += [other for other in behind if isinstance(other, BaseException)]


def entry() -> None:
    sys.exit(main())
