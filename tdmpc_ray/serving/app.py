"""The HTTP interface, and the deployment behind it. Imported where Ray Serve is installed.

Annotations are not postponed here: FastAPI could not resolve them in a replica, where this class is a copy.
"""

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, cast

import torch
from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from ray import serve
from ray.serve._private.constants import SERVE_SESSION_ID
from starlette.exceptions import HTTPException as AnyHTTPException

from tdmpc_ray.core.nn.kernels import keep_freed_memory
from tdmpc_ray.core.saved_agent import read_agent
from tdmpc_ray.errors import UserError
from tdmpc_ray.serving.guard import Guard, Rules, max_bytes
from tdmpc_ray.serving.options import ReplicaOptions
from tdmpc_ray.serving.sessions import BatchPlanner, Decision, Session, Sessions, to_the_end

SESSION_HEADER = SERVE_SESSION_ID
_MAX_NAME = 200  # characters of a session's name
_NAME = r"^[A-Za-z0-9._~:@+-]*$"  # what addresses and headers take as it is
_WORDS = {  # in the place of pydantic's
    "missing": "is missing",
    "extra_forbidden": "is not known; there are session, obs, is_first, task",
    "string_type": "is not a string",
    "string_too_short": "is empty",
    "string_too_long": f"has more than {_MAX_NAME} characters",
    "list_type": "is not a list",
    "bool_type": "is neither true nor false",
    "bool_parsing": "is neither true nor false",
}
_SessionName = Annotated[str, Path(min_length=1, max_length=_MAX_NAME, pattern=_NAME)]


class ActRequest(BaseModel, extra="forbid"):
    """What a client sees."""

    session: str = Field(min_length=1, max_length=_MAX_NAME, pattern=_NAME)
    obs: list[Any]
    is_first: bool = False
    task: str | None = None


def _rules() -> Rules:
    """Those of the replica that this process is."""
    return cast(Any, serve.get_replica_context().servable_object).rules


app = FastAPI(openapi_url=None)  # the interface is in docs/serving.md
app.add_middleware(Guard, rules=_rules)


@app.exception_handler(AnyHTTPException)
async def _refuse(request: Request, error: AnyHTTPException) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


@app.exception_handler(UserError)
async def _explain(request: Request, error: UserError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 422)


@app.exception_handler(RequestValidationError)
async def _explain_fields(request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return JSONResponse({"error": "the body is not JSON"}, 422)
    if first["type"] == "model_attributes_type":  # also what JSON is without its header
        message = "the body must be a JSON object, sent with 'Content-Type: application/json'"
        return JSONResponse({"error": message}, 422)
    if first["type"] == "string_pattern_mismatch":
        message = "session: a name of letters, digits and any of . _ ~ : @ + -"
        return JSONResponse({"error": message}, 422)
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "path"))
    words = _WORDS.get(first["type"], first["msg"])
    return JSONResponse({"error": f"{where}: {words}" if where else words}, 422)


@serve.deployment
@serve.ingress(app)
class PlanServer:
    """One process that plans for the sessions that come to it."""

    def __init__(self, options: ReplicaOptions) -> None:
        torch.set_num_threads(options.threads)
        keep_freed_memory()
        self._options = options
        self._agent = read_agent(options.folder, options.device, options.settings, options.seed)
        description = self._agent.description
        sizes = [description.shapes(i if description.tasks else None)[0] for i in range(self._num_tasks)]
        self.rules = Rules(options.token, max_bytes(max(map(math.prod, sizes))))
        self._sessions = Sessions(options.max_sessions, options.idle_s)
        self._planner = BatchPlanner(self._agent, options.max_batch)
        self._thread = ThreadPoolExecutor(1, "planner")
        self._thread.submit(self._planner.warm_up).result()

    @property
    def _num_tasks(self) -> int:
        return max(len(self._agent.description.tasks), 1)

    @app.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Whether it can be asked."""
        return {"status": "ok"}

    @app.get("/v1/model")
    async def model(self) -> dict[str, Any]:
        """What is served."""
        description, planner = self._agent.description, self._agent.config.planner
        tasks = description.tasks or ((description.task,) if description.task else ())
        sizes = [description.shapes(i if description.tasks else None) for i in range(self._num_tasks)]
        return {
            "model": self._options.model,
            "tasks": [
                {"task": task, "obs_shape": obs_shape, "action_dim": action_dim}
                for task, (obs_shape, action_dim) in zip(tasks or (None,), sizes, strict=True)
            ],
            "action_bounds": [-1.0, 1.0],
            "planner": planner.method,
            "horizon": planner.horizon,
            "parameters": self._agent.networks.num_params(),
            "versions": description.versions,
            "max_batch": self._options.max_batch,
        }

    @app.post("/v1/act")
    async def act(self, request: ActRequest, http: Request) -> JSONResponse:
        """Decide for one session."""
        self._check_replica(http, request.session)
        task_id = self._sessions.task_id(request.session)
        if task_id is None or request.task is not None:
            task_id = self._agent.description.task_id(request.task)
        obs = self._planner.check(request.obs, task_id)
        session = self._sessions.get(request.session)  # not before: what is refused takes nobody's place
        self._set_batch()
        async with session.lock:
            is_first = request.is_first or session.prev_mean is None
            if is_first:
                session.prev_mean, session.task_id = None, task_id
            elif task_id != session.task_id:
                raise UserError("a session keeps its task until is_first: true begins another episode")
            # A client that leaves does not end its batch, so its session stays locked until that is done.
            decision = await to_the_end(self._decide((session, obs)))
        return JSONResponse(
            {
                "action": decision.action.tolist(),
                "is_first": is_first,
                "planning_ms": round(decision.planning_ms, 3),
                "batch": decision.batch,
                "model": self._options.model,
            }
        )

    @app.delete("/v1/sessions/{name}")
    async def end(self, name: _SessionName, http: Request) -> dict[str, bool]:
        """Forget a session."""
        self._check_replica(http, name)
        return {"ended": self._sessions.end(name)}

    @serve.batch
    async def _decide(self, jobs: list[tuple[Session, torch.Tensor]]) -> list[Decision]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._planner, jobs)

    def _set_batch(self) -> None:
        """A batch is full with all sessions that ask at present; one that asks alone never waits."""
        active = self._sessions.active()
        self._decide.set_max_batch_size(min(active, self._options.max_batch))
        self._decide.set_batch_wait_timeout_s(self._options.batch_wait_s if active > 1 else 0.0)

    def _check_replica(self, http: Request, session: str) -> None:
        """With several replicas, what leads a session to its own is a header, which Serve can read."""
        if self._options.replicas > 1 and http.headers.get(SESSION_HEADER) != session:
            raise UserError(
                f"{self._options.replicas} replicas serve: send the session's name in the header "
                f"{SESSION_HEADER} as well, so that it stays with one"
            )
