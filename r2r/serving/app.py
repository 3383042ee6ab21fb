"""The student behind HTTP: the rerank paths of Cohere, Jina, vLLM, Voyage, Mixedbread and TEI, on Ray Serve.

Owns the paths, the errors' answers, the deployment, its start and its end. Shapes of requests, limits and metrics have
modules of their own beside it; how passages are ranked is in `r2r.student.rank`.

    curl http://127.0.0.1:8000/v1/rerank -H 'Content-Type: application/json' \\
      -d '{"query": "what drives the Esker furnace", "documents": ["Merchants order buttons from it."]}'
"""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from r2r import __version__
from r2r.config import ServeSettings, validate
from r2r.errors import BadInput
from r2r.llm import Died, Refused
from r2r.llm.engine import check_arguments, with_short_steps
from r2r.llm.prompt import cut_to_fit
from r2r.places import place
from r2r.serving import shapes
from r2r.serving.limits import KEYS_VARIABLE, LARGEST_BODY, RETRY_AFTER, Gate, is_loopback, read_keys
from r2r.serving.metrics import Metrics
from r2r.serving.page import add_page
from r2r.serving.shapes import FAILED, Answer, Error, Result, error_of, sentence_of
from r2r.serving.tools import add_tools
from r2r.student.rank import Ranked, Ranker, check_student
from r2r.student.record import warn_of_long_windows, warn_of_no_temperature, warn_of_slow_adapter
from r2r.workers import start_ray, use_driver_folder

# Seconds between two lines about the start.
_PATIENCE = 10
# Requests of a replica beyond those that it ranks: probes, and those that it refuses.
_REFUSALS = 64
# Settings of a Ray Serve that starts here, which it reads when it is imported; docs/serving.md lists them.
RAY_SERVE = {
    # A proxy that died is replaced after three looks, half a minute at Ray Serve's own 10 s.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    # Proxy and replica talk by gRPC, whose own limit is 4 MB, and the replica has one event loop.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(8 * LARGEST_BODY),
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    # The log of each request stays in Ray's log folder.
    "RAY_SERVE_LOG_TO_STDERR": "0",
}
_EXAMPLE = {
    "query": "what drives the Esker furnace",
    "documents": [
        "Esker furnace\nIts parts are easy to replace. Merchants order buttons from it.",
        {"title": "Esker furnace", "text": "It is kept moving by a steel spring. It jams on mice."},
    ],
}
_EXAMPLES: Any = {
    "Cohere, Jina, vLLM": {"value": _EXAMPLE},
    "with reasons": {"value": _EXAMPLE | {"top_n": 1, "explain": True}},
    "reasons as they are written": {"value": _EXAMPLE | {"explain": [1], "stream": True}},
    "Voyage": {"value": {"query": "how long do fleas live", "documents": ["Dogs bark."], "top_k": 1}},
    "TEI": {"value": {"query": "how long do fleas live", "texts": ["Dogs bark."], "return_text": True}},
}
_RESULT = {"index": 1, "relevance_score": 1.0, "document": _EXAMPLE["documents"][1]}
_ANSWER = {"id": "rerank-7d5e", "model": "demo", "results": [_RESULT], "usage": {"prompt_tokens": 90}}
_RESPONSES: Any = {200: {"content": {"application/json": {"example": _ANSWER}}}}


def application(ranker: Ranker, settings: ServeSettings, name: str, keys: Sequence[bytes] = ()) -> FastAPI:
    """Return the ASGI application around a ranker that is ready.

    name: the student's public name. keys: what `read_keys` returned. `ranker.model` is asked whether it is alive.
    """
    app, metrics = FastAPI(title="Reason-to-Rank", version=__version__), Metrics()
    app.add_middleware(Gate, keys=keys, most=settings.max_requests, metrics=metrics)
    if settings.allowed_origins:
        # Around the gate: a browser asks first, without a key, and shows a refusal only with these headers.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-api-key"],
            expose_headers=["retry-after"],
        )
    answer_errors(app)
    started = int(time.time())

    async def answered(request: shapes.Request) -> Response:
        if request.model not in ("", name):
            raise HTTPException(404, f"model: not the one that is served; leave it out, or name {name}")
        texts = request.texts
        if request.max_tokens_per_doc:
            texts, _ = cut_to_fit(ranker.tokenizer, texts, sys.maxsize, request.max_tokens_per_doc)
        wanted = _wanted(request, ranker.taught.window)
        steps = ranker.steps(request.query, texts, wanted, request.stream, request.first_stage)
        deadline = asyncio.get_running_loop().time() + settings.request_timeout

        async def step() -> Ranked | None:
            async with asyncio.timeout_at(deadline):
                return await anext(steps, None)

        def answer(ranked: Ranked) -> Any:
            graded = zip(ranked.order[: request.top_n], ranked.scores, strict=False)
            results = [
                Result(index, score, request.documents[index], request.texts[index], ranked.reasons.get(index))
                for index, score in graded
                if score >= request.min_score
            ]
            tokens = ranked.counts["prompt_tokens"], ranked.counts["completion_tokens"]
            return request.shaped(Answer(name, results, *tokens))

        def count(ranked: Ranked) -> None:
            metrics.documents.inc(len(texts))
            for kind in ("prompt", "completion"):
                metrics.tokens.labels(kind).inc(ranked.counts[f"{kind}_tokens"])

        async def events(ranked: Ranked) -> AsyncIterator[str]:
            yield _event("order", answer(ranked))
            told: set[int] = set()
            async with aclosing(steps):
                try:
                    while later := await step():
                        ranked = later
                        for index, reasons in ranked.reasons.items():
                            if index not in told:
                                told.add(index)
                                yield _event("reason", {"index": index, "reasons": reasons})
                except (Refused, Died, TimeoutError) as error:
                    yield _event("error", error_of(error).shaped())
                    return
            count(ranked)
            yield _event("done", {kind: ranked.counts[kind] for kind in ("prompt_tokens", "completion_tokens")})

        ranked = await step()
        assert ranked is not None
        if request.stream:
            return StreamingResponse(events(ranked), media_type="text/event-stream")
        while later := await step():
            ranked = later
        count(ranked)
        # Not through FastAPI's own encoder, which walks through all texts once more.
        return JSONResponse(answer(ranked))

    @app.post("/rerank", responses=_RESPONSES)
    @app.post("/v1/rerank", responses=_RESPONSES)
    async def rerank(request: Annotated[shapes.AnyRequest, Body(openapi_examples=_EXAMPLES)]) -> Response:
        """Rank documents, best first, in the shape of Cohere v1, Jina and vLLM; of Voyage if the request has `top_k` or
        `truncation`; of TEI if it has `texts`. A score is the share of the other documents expected below this one."""
        return await answered(request)

    @app.post("/v2/rerank", responses=_RESPONSES)
    async def rerank_v2(request: Annotated[shapes.CohereV2, Body(examples=[_EXAMPLE])]) -> Response:
        """Rank documents in the shape of Cohere v2."""
        return await answered(request)

    @app.post("/infinity/rerank")
    async def rerank_infinity(request: Annotated[shapes.Infinity, Body(examples=[_EXAMPLE])]) -> Response:
        """Rank documents in the shape of Infinity."""
        return await answered(request)

    @app.post("/voyage/v1/rerank")
    async def rerank_voyage(request: Annotated[shapes.Voyage, Body(examples=[_EXAMPLE])]) -> Response:
        """Rank documents in the shape of Voyage, also for requests without `top_k`."""
        return await answered(request)

    @app.post("/v1/reranking")
    async def reranking(request: shapes.Mixedbread) -> Response:
        """Rank documents in the shape of Mixedbread."""
        return await answered(request)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say whether this replica answers. It starts after its adapter was checked and its engine has answered."""
        ranker.model.check_alive()
        return {"status": "ok"}

    @app.get("/version")
    async def version() -> dict[str, str]:
        """Return the version of Reason-to-Rank."""
        return {"version": __version__}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the one model that is served, as OpenAI's API does."""
        return {"object": "list", "data": [served()]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        """Return the model that is served, as OpenAI's API does."""
        if model != name:
            raise HTTPException(404, f"model: not the one that is served; name {name}")
        return served()

    def served() -> dict[str, Any]:
        return {"id": name, "object": "model", "created": started, "owned_by": "r2r"}

    @app.get("/info")
    async def info() -> dict[str, Any]:
        """Return what is served, as TEI does."""
        return {
            "model_id": name,
            "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "max_concurrent_requests": settings.max_requests,
            "max_input_length": ranker.model.max_length,
            "max_client_batch_size": shapes.MOST_DOCUMENTS,
            "version": __version__,
        }

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Return this replica's metrics in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    add_page(app)
    add_tools(app, answered)
    return app


def _wanted(request: shapes.Request, window: int) -> int | list[int]:
    """Return the documents to explain, as `Ranker.rank` takes them."""
    if isinstance(request.explain, list):
        return request.explain
    first = min(request.top_n, len(request.documents), window)
    return first if request.explain is True else min(request.explain, first)


def _event(kind: str, data: Any) -> str:
    """Return a server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def answer_errors(app: FastAPI) -> None:
    """Let the application answer each error in the shape of `Error`: a sentence, without the input or a trace."""

    def told(error: Error, headers: Any = None) -> JSONResponse:
        return JSONResponse(error.shaped(), error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def unsound(_: Any, error: RequestValidationError) -> JSONResponse:
        return told(Error(422, sentence_of(error.errors()[0])))

    @app.exception_handler(HTTPException)
    async def refused(_: Any, error: HTTPException) -> JSONResponse:
        return told(Error(error.status_code, str(error.detail)), error.headers)

    @app.exception_handler(Refused)
    @app.exception_handler(Died)
    @app.exception_handler(TimeoutError)
    async def unranked(_: Any, error: Refused | Died | TimeoutError) -> JSONResponse:
        found = error_of(error)
        return told(found, RETRY_AFTER if found.status >= 500 else None)

    @app.exception_handler(Exception)
    async def failed(_: Any, error: Exception) -> JSONResponse:
        return told(FAILED)


class Replica:
    """One replica of the deployment: a student in its engine, ranking as `r2r rerank` does. It is ready once its
    adapter was checked and its engine has answered."""

    # Ray Serve awaits it.
    async def __init__(  # type: ignore[misc]
        self, student: str, adapter: str | None, settings: ServeSettings, name: str, keys: list[bytes], folder: str
    ):
        use_driver_folder(folder)
        self.settings, self.name, self.keys = settings, name, keys
        with _request_log_kept_open():
            waited_for = settings.model_copy(update={"engine": with_short_steps(settings.engine)})
            self.ranker = Ranker(student, adapter, waited_for)
        await self.ranker.rank("ready", ["yes", "no"])

    def __serve_build_asgi_app__(self) -> FastAPI:
        return application(self.ranker, self.settings, self.name, self.keys)

    async def check_health(self) -> None:
        """Raise Died if the engine has: Ray Serve then replaces this replica."""
        self.ranker.model.check_alive()

    def __del__(self) -> None:
        # Ray Serve calls it once the last request is answered. The engine's process would outlive this one.
        if hasattr(self, "ranker"):
            self.ranker.model.close()


@contextmanager
def _request_log_kept_open() -> Iterator[None]:
    """Keep Ray Serve's log of requests writing.

    vLLM configures Python's logging while it loads, and Python then closes all handlers. From then on, Ray Serve's
    would hold each request's line in memory, without end, and write none.
    """
    handlers = logging.getLogger("ray.serve").handlers
    targets = {one: one.target for one in handlers if isinstance(one, logging.handlers.MemoryHandler)}
    try:
        yield
    finally:
        for handler, target in targets.items():
            handler.setTarget(target)


def public_name(student: str, settings: ServeSettings) -> str:
    """Return the name of the student in requests and answers: as set, else its hub name, or its folder's last part."""
    return settings.name or (place(student).absolute().name if place(student).is_dir() else student)


class _Arguments(ServeSettings):
    """What `serve.yaml` gives: what `r2r serve` takes, except the address, which is Ray Serve's own."""

    student: str
    adapter: str | None = None


def build(arguments: dict[str, Any]) -> Any:
    """Return the application for Ray Serve's own commands, as `serve deploy serve.yaml`: its `import_path`.

    arguments: those of `r2r serve`, by name, such as {"student": "demo", "adapter": ..., "merge": True}. Keys are read
    where this runs, on the cluster. Raises BadInput as `r2r serve` does.
    """
    from ray import serve as ray_serve

    given = validate(_Arguments, arguments, "args")
    for name in ("host", "port"):
        if name in given.model_fields_set:
            raise BadInput(f"args: {name}: belongs under http_options; write it there")
    return _bound(ray_serve, given.student, given.adapter, given, read_keys(given.api_keys))


def _bound(ray_serve: Any, student: str, adapter: str | None, settings: ServeSettings, keys: list[bytes]) -> Any:
    arguments = (student, adapter, settings, public_name(student, settings), keys, os.getcwd())
    return _deployment(ray_serve, settings).bind(*arguments)


def serve(student: str, adapter: str | None, settings: ServeSettings) -> None:
    """Serve until SIGTERM or Ctrl-C, which let requests in flight end. A setting that is None is taken from the
    adapter's record.

    Raises BadInput if the adapter was made for another model, or was distilled otherwise than the settings say.
    """
    started = time.monotonic()
    with _telling_of_the_start() as checked:
        check_arguments(settings.engine)
        check_student(student, adapter, settings)
        warn_of_long_windows(settings, adapter, student)
        warn_of_no_temperature(settings, adapter, student)
        warn_of_slow_adapter(settings, adapter)
        keys, port = read_keys(settings.api_keys), settings.port or _free_port(settings.host)
        address = f"http://{f'[{settings.host}]' if ':' in settings.host else settings.host}:{port}"
        if not keys and not is_loopback(settings.host):
            said = f"{settings.host} can be reached by others; give --api-keys or {KEYS_VARIABLE}"
            _say(f"warning: no API keys, and {said}")
        checked.set()
        for name, value in RAY_SERVE.items():
            os.environ.setdefault(name, value)
        try:
            start_ray()
            from ray import serve as ray_serve

            ray_serve.start(http_options={"host": settings.host, "port": port})
            _deploy(ray_serve, _bound(ray_serve, student, adapter, settings, keys))
        except BaseException:
            _shut_down()
            raise
    seconds = time.monotonic() - started
    print(f"serve: {student} answers POST {address}/v1/rerank; ready after {seconds:.0f} s; Ctrl-C ends it", flush=True)
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        _say("ending; requests in flight are finished first")
        # Takes the paths away and waits for the replicas; the proxy goes on until their answers are sent.
        ray_serve.delete("rerank")
        _shut_down()


def _free_port(host: str) -> int:
    """Return a free port. Ray Serve does not report which one it took. Raises BadInput for an address of others."""
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
            return int(free.getsockname()[1])
    except OSError as error:
        raise BadInput(
            f"host: {host}: {(error.strerror or str(error)).lower()}; give an address of this machine"
        ) from None


def _deployment(ray_serve: Any, settings: ServeSettings) -> Any:
    """Return the deployment of `Replica`."""
    return ray_serve.deployment(
        ray_serve.ingress()(Replica),
        name="rerank",
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "max_replicas": settings.replicas,
            "target_ongoing_requests": min(32, settings.max_requests),
        },
        # The replica itself refuses what is too much, in the shape of its other errors, and still answers probes.
        max_ongoing_requests=settings.max_requests + _REFUSALS,
        max_queued_requests=settings.max_requests + _REFUSALS,
        backpressure_config={"status_code": 429, "retry_after_s": 1},
        # A replica whose adapter does not fit will not fit at the next attempt.
        max_constructor_retry_count=1,
        # A replica is replaced after three looks; until then it answers 503 at once, and so gets more than its share.
        health_check_period_s=2,
        graceful_shutdown_timeout_s=settings.request_timeout,
    )


def _deploy(ray_serve: Any, application: Any) -> None:
    """Deploy, and wait until the first replicas are ready. Raises BadInput with what a replica's BadInput says."""
    try:
        ray_serve.run(application, name="rerank", route_prefix="/")
    except RuntimeError:
        # Ray Serve keeps a replica's exception as the text of its traceback.
        said = "\n".join(_messages(ray_serve))
        lines = [line.partition(": ")[2] for line in said.splitlines() if line.startswith("r2r.errors.BadInput: ")]
        if lines:
            raise BadInput(lines[0]) from None
        raise


def _messages(ray_serve: Any) -> list[str]:
    """Return what Ray Serve says of the deployment."""
    found = ray_serve.status().applications.get("rerank")
    return [one.message for one in found.deployments.values()] if found else []


@contextmanager
def _telling_of_the_start() -> Iterator[threading.Event]:
    """Print what the start waits for, every _PATIENCE seconds while the block runs. Yields the event that its checks,
    whose libraries take a while to load on a busy machine, are behind it."""
    over, checked, started = threading.Event(), threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(_PATIENCE):
            waits_for = _waits_for() if checked.is_set() else "the student to be checked"
            _say(f"{time.monotonic() - started:.0f} s, waiting for {waits_for}")

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield checked
    finally:
        over.set()


def _waits_for() -> str:
    """Return what the start waits for."""
    import ray
    from ray import serve as ray_serve

    if not ray.is_initialized():
        return "Ray to start"
    try:
        found = ray_serve.status().applications.get("rerank")
    except Exception:
        # Of many types, while Ray Serve starts.
        found = None
    replicas = found.deployments.get("rerank") if found else None
    if replicas is None or not replicas.replica_states:
        return "Ray Serve to start"
    states = ", ".join(f"{count} {state.lower()}" for state, count in replicas.replica_states.items())
    # Ray Serve says here if a replica finds no room in the cluster.
    more = f": {replicas.message.splitlines()[0]}" if replicas.message else ""
    return f"replicas to load the student ({states}){more}"


def _shut_down() -> None:
    """End Ray Serve, if there is one."""
    import ray
    from ray import serve as ray_serve

    # Without a Ray, Ray Serve would start one to look for itself.
    if ray.is_initialized():
        ray_serve.shutdown()


def _say(line: str) -> None:
    print(f"serve: {line}", file=sys.stderr, flush=True)
