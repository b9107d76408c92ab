"""Prefect flows: `retrain`, the pipeline on a schedule, and `colorize_archive` for batches.

DVC decides which stages run and in which order. The flows add what DVC does not do: one run at a
time, live logs, time limits, repeated downloads, a message on failure, pictures of the result.
Secrets come from the environment and are not logged; the stages do not get the webhook's address.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import UUID

# Prefect reads these when it is imported. The server that it starts by itself, where no other is
# set, takes 13–20 s on two idle cores.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

import requests
from prefect import Flow, State, Task, flow, get_client, get_run_logger, runtime, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    FlowRun,
)
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Crashed, Failed
from prefect.tasks import exponential_backoff
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from colorized import tracking
from colorized.params import Params, load_params
from colorized.tracking import versions
from pipelines import lock, results, stage
from pipelines.process import WEBHOOK, follow

if TYPE_CHECKING:
    from dvc.repo import Repo

DOWNLOAD, TRAIN = "download", "train"
"""The stage that is repeated when it fails, and the one that `force` runs."""
SECTIONS = {DOWNLOAD: "data", "preprocess": "preprocess"}
"""Stages that do not log their own MLflow run, and the section of parameters of each."""
PHOTOGRAPHS = ".dvc"
"""Suffix of DVC's name for a folder of photographs under `dvc add`."""

RETRIES = 3
BACKOFF_SECONDS = 20.0
"""Before the first retry of a download, twice that before the second, and so on."""
STAGE_HOURS = 48.0
"""Time limit of a stage: a hanging one ends well before next week's run."""

Outcome = dict[str, str]
"""Result of each stage: ran, restored, recorded (photographs) or unchanged."""


class BadSchedule(ValueError):
    """One line that says why nothing can run at such times."""


def notify(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Post a short JSON about a failed run to the webhook, if the environment names one."""
    address = os.environ.get(WEBHOOK)
    if not address:
        return
    text = f"{flow.name} {flow_run.name}: {state.name}: {state.message or ''}".strip()
    body = {"text": text, "flow": flow.name, "run": str(flow_run.id), "state": state.name}
    try:
        requests.post(address, json=body, timeout=10).raise_for_status()
    except requests.RequestException as error:
        # Its text may hold the address, which is a secret.
        print(f"warning: the webhook was not reached: {type(error).__name__}", file=sys.stderr)


@flow(name="retrain", log_prints=True, on_failure=[notify], on_crashed=[notify])
def retrain(
    force: bool = False,
    stage_hours: float = STAGE_HOURS,
    commit: bool = False,
    push: bool = False,
) -> State[Any]:
    """Run the pipeline, then compare the new model with the champion.

    Parameters
    ----------
    force
        Train even if data, parameters and code did not change.
    stage_hours
        Time limit of a stage.
    commit
        Commit dvc.lock, params.yaml and reports/ afterwards, so that a clone can reproduce it.
    push
        Also push the commit and DVC's data.
    """
    try:
        with lock.take(stage.ROOT) as held:
            # Before DVC, which removes a stage's old results before it starts the stage.
            params = load_params(stage.ROOT / "params.yaml")
            _tidy(held.left)
            data = params.data
            always = {DOWNLOAD} if data.source == "kaggle" and data.version == "latest" else set()
            seconds = stage_hours * 3600
            if force or always or held.left or _changed():
                forced = always | ({TRAIN} if force else set())
                state = _pipeline(held, params, forced, seconds)
            else:
                state = results.up_to_date()
            if state.is_failed():
                return state
            # Includes what an earlier run could not commit or push.
            done = _commit(params, push, seconds, return_state=True) if commit or push else None
            # Includes a model that could not be compared last time.
            promoted: Any = _promote(seconds, held.file, return_state=True)
            ends = [state, *([done] if done else []), promoted]
            message = "; ".join(end.message or end.name for end in ends)
            if not all(end.is_completed() for end in ends):
                return Failed(message=message)
            return Completed(name=state.name, message=message)
    except lock.Held as error:
        return Cancelled(name="Skipped", message=str(error))
    except (OSError, ValueError) as error:
        return Failed(message=" ".join(str(error).split()))


@flow(name="colorize-archive", on_failure=[notify], on_crashed=[notify])
def colorize_archive(
    inputs: list[Path], out: Path, options: list[str] | None = None, hours: float = STAGE_HOURS
) -> State[Any]:
    """Color one batch of photographs.

    Parameters
    ----------
    inputs
        Photographs, or folders of them.
    out
        Folder for the colored photographs.
    options
        Further options of `colorized colorize`, such as ["--steps", "20"].
    hours
        Time limit of the batch.
    """
    done: State[Any] = _colorize(inputs, out, options or [], hours * 3600, return_state=True)
    return State(type=done.type, name=done.name, message=done.message)


def schedule(cron: str, name: str, timezone: str, parameters: dict[str, bool]) -> None:
    """Serve `retrain` with these parameters from this machine until Ctrl-C.

    A run that comes due while another lasts is canceled.

    Raises
    ------
    BadSchedule
        The cron line or the time zone is invalid.
    ValueError
        No Prefect server is set, or it does not answer.
    """
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        raise BadSchedule(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
    if not PREFECT_API_URL.value():
        raise ValueError(
            "a schedule needs a Prefect server: start one with `prefect server start` and set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise ValueError(
            f"the Prefect server of PREFECT_API_URL does not answer ({type(problem).__name__}): "
            "`prefect server start` starts one"
        )
    print(f"retrain/{name} runs at {cron} ({timezone}); Ctrl-C ends it", flush=True)
    retrain.serve(
        name=name,
        schedule=Cron(cron, timezone=timezone),
        parameters=parameters,
        global_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
        ),
        entrypoint_type=EntrypointType.MODULE_PATH,
        print_starting_message=False,
    )


def _pipeline(held: lock.Lock, params: Params, forced: set[str], seconds: float) -> State[Any]:
    """Run all stages in a parent run of MLflow, which gets their status and results."""
    tags = {
        "stage": "retrain",
        "prefect_run": str(runtime.flow_run.id),
        **versions.describe(stage.ROOT),
    }
    values = params.model_dump() | {"force": TRAIN in forced}
    run = tracking.open_run(stage.ROOT, f"retrain {runtime.flow_run.name}", values, tags)
    held.note(mlflow_run=run.run_id, prefect_run=str(runtime.flow_run.id))
    url = tracking.run_url(run.run_id)
    os.environ[tracking.PARENT] = run.run_id
    status = "KILLED"
    try:
        state = _stages(held, params, forced, seconds)
        if state.is_failed():
            status = "FAILED"
        else:
            results.log(run, params)
            status = "FINISHED"
    except (OSError, ValueError):
        status = "FAILED"
        raise
    finally:
        del os.environ[tracking.PARENT]
        run.finish(status)
    create_link_artifact(url, "MLflow run", key="mlflow-run", description=f"run {run.run_id}")
    return state


def _stages(held: lock.Lock, params: Params, forced: set[str], seconds: float) -> State[Any]:
    outcome: Outcome = {}
    for name in _stage_names():
        run, started = _task(name), time.time()
        done: Any = run(name, name in forced, seconds, held.file, return_state=True)
        if name in SECTIONS and done.name != "Unchanged":
            section = {SECTIONS[name]: params.model_dump()[SECTIONS[name]]}
            status = "FINISHED" if done.is_completed() else "FAILED"
            results.log_stage(name, section, started, status)
        if not done.is_completed():
            return Failed(message=done.message)
        outcome[name] = done.name.lower()
    changed = [name for name, what in outcome.items() if what != "unchanged"]
    if set(changed) <= {DOWNLOAD}:
        return results.up_to_date()
    results.show()
    what = ", ".join(f"{name.removesuffix(PHOTOGRAPHS)} {outcome[name]}" for name in changed)
    return Completed(message=what if TRAIN in changed else f"nothing retrained: {what}")


def _task(name: str) -> Task[Any, Any]:
    again = {"retries": RETRIES, "retry_delay_seconds": exponential_backoff(BACKOFF_SECONDS)}
    options: dict[str, Any] = again if name == DOWNLOAD else {}
    shown = name.removesuffix(PHOTOGRAPHS)
    return _reproduce.with_options(name=shown, task_run_name=shown, **options)


@task(cache_policy=NO_CACHE)
def _reproduce(name: str, force: bool, seconds: float, file: int | None) -> State[Any]:
    """Let DVC run one stage, if anything it depends on changed."""
    if not (force or _changed(name)):
        return Completed(name="Unchanged", message=f"{name}: nothing it depends on changed")
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", name]
    with TemporaryDirectory() as folder:
        ran = Path(folder, "ran")
        variables = {stage.RAN: str(ran)} | ({stage.AGAIN: "1"} if force else {})
        _, problem = _follow(command + ["--force"] * force, seconds, file, variables)
        if problem:
            return Failed(message=f"{name}: {problem}")
        # A stage that did not run was restored from DVC's run cache.
        what = "ran" if ran.exists() else "restored"
    if name.endswith(PHOTOGRAPHS):
        return Completed(name="Recorded", message=f"{name} names the photographs as they are now")
    return Completed(name=what.capitalize(), message=f"{name} {what}")


@task(name="promote", task_run_name="promote", cache_policy=NO_CACHE)
def _promote(seconds: float, file: int | None) -> State[Any]:
    """Compare the new model with the champion."""
    command = [sys.executable, "-W", "ignore", "-m", "colorized", "promote"]
    lines, problem = _follow(command, seconds, file)
    if problem:
        return Failed(message=f"promotion: {problem}")
    message = next(
        line for line in reversed(lines) if line.startswith(("promoted", "not promoted"))
    )
    create_markdown_artifact(message, key="promotion", description="against the champion")
    return Completed(message=message)


@task(name="commit", task_run_name="commit", cache_policy=NO_CACHE)
def _commit(params: Params, push: bool, seconds: float) -> State[Any]:
    """Commit the retraining and tag its runs with the commit."""
    metrics = json.loads(stage.METRICS.read_text(encoding="utf-8"))
    message = f"Retrain {runtime.flow_run.name}: FID {metrics['fid']:.2f}"
    try:
        sha = versions.commit_retraining(stage.ROOT, params.data.path, message, push, seconds)
    except versions.NotCommitted as error:
        return Failed(message=str(error))
    sha256 = hashlib.sha256(stage.WEIGHTS.read_bytes()).hexdigest()
    try:
        tracking.Registry(stage.ROOT, create=True).name_commit(sha256, sha)
    except tracking.StoreUnavailable as error:
        get_run_logger().warning("the runs do not name the commit yet: %s", error)
    return Completed(message=f"committed as {sha[:12]}{' and pushed' if push else ''}")


@task(name="colorize", task_run_name="colorize", cache_policy=NO_CACHE)
def _colorize(inputs: list[Path], out: Path, options: list[str], seconds: float) -> State[Any]:
    command = [sys.executable, "-m", "colorized", "colorize", *map(str, inputs), "-o", str(out)]
    lines, problem = _follow([*command, *options], seconds)
    notes = [line for line in lines if line.startswith(("error: ", "warning: ", "note: "))]
    colored = sum(line.startswith(f"{out}/") for line in lines)
    summary = [f"{colored} photographs colored, in `{out}`", *(f"- {note}" for note in notes)]
    create_markdown_artifact("\n\n".join(summary), key="colorized")
    return Failed(message=problem) if problem else Completed(message=summary[0])


def _follow(
    command: Sequence[str],
    seconds: float,
    file: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[list[str], str]:
    """Run a command with its output in the log; its lines, and the error in one line."""
    log = get_run_logger()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        log.info("%s", line)

    code = follow(command, say, seconds, () if file is None else (file,), variables)
    if code is None:
        return lines, f"ended after {seconds / 3600:g} hours, its time limit"
    errors = [line for line in lines if line.lower().startswith("error: ")] or [f"exit code {code}"]
    # The first error is the stage's own, later ones are DVC's about the stage.
    return lines, errors[0].partition(": ")[2] or errors[0] if code else ""


@contextmanager
def _dvc() -> Iterator[Repo]:
    """The project as DVC sees it now."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(stage.ROOT)) as repo:
            yield repo
    except DvcException as error:
        raise ValueError(f"DVC: {error}") from error


def _stage_names() -> list[str]:
    """The stages in DVC's order, including folders of photographs under `dvc add`."""
    from dvc.repo.reproduce import plan_repro

    with _dvc() as repo:
        return [each.addressing for each in plan_repro(repo.index.graph)]


def _changed(*names: str) -> bool:
    """Whether DVC would run any of these stages, or any at all if none is named."""
    with _dvc() as repo:
        return bool(repo.status(list(names)))


def _tidy(left: dict[str, str]) -> None:
    """Send unsent runs to MLflow, and close what a killed run left open there and in Prefect."""
    with suppress(tracking.StoreUnavailable):
        tracking.deliver(stage.ROOT)
        run = left.get("mlflow_run") and tracking.Run.reopen(stage.ROOT, left["mlflow_run"])
        if run:
            run.finish("KILLED")
    if "prefect_run" in left:
        with get_client(sync_client=True) as client, suppress(ObjectNotFound):
            run_id = UUID(left["prefect_run"])
            state = client.read_flow_run(run_id).state
            if state is not None and not state.is_final():
                client.set_flow_run_state(run_id, Crashed(message="it was killed"), force=True)
