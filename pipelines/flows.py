"""The pipeline as a Prefect flow, to be run on a schedule; `colorize_archive` for batches.

DVC knows the stages, their order and what changed; here is only what DVC does not do: one run at a
time, live logs, time limits, repeated downloads, a message on failure, pictures of the result.
Secrets come from the environment and go nowhere: the webhook's address is not even handed down to
the stages.
"""

from __future__ import annotations

import base64
import codecs
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from uuid import UUID

# Prefect reads these when it is imported. The server that it starts by itself, where no other is
# set, takes 13–20 s on two idle cores.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

from PIL import Image
from prefect import Flow, State, Task, flow, get_client, get_run_logger, runtime, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Crashed, Failed
from prefect.tasks import exponential_backoff
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError
from ruamel.yaml import YAML

from colorized import tracking
from colorized.params import load_params
from pipelines import lock, stage

DOWNLOAD, TRAIN = "download", "train"
"""The stage that meets other people's servers, and the one that `force` is about."""

WEBHOOK = "COLORIZED_WEBHOOK_URL"
RETRIES = 3
BACKOFF_SECONDS = 20.0
"""Before the first retry of a download, twice that before the second, and so on."""
STAGE_HOURS = 48.0
"""A stage that hangs must have ended long before next week's run."""
GRACE_SECONDS = 20.0
"""For a stage to write its checkpoint; Prefect kills a canceled flow after 30."""
BAR_SECONDS = 15.0
"""A progress bar, which redraws itself ten times a second, is logged this often."""
GRID_PIXELS = 1200
"""Long side of the picture grid as Prefect keeps it, in its database."""

Outcome = dict[str, str]
"""What DVC did with each stage: ran, restored or unchanged."""

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SAYS = {
    "ran": re.compile(r"^Running stage '"),
    "restored": re.compile(r"^Stage '[^']*' is cached - skipping run"),
}


class BadSchedule(ValueError):
    """One line that says why nothing can run at such times."""


def notify(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Tell the webhook, if the environment names one, that a run failed: a short JSON."""
    address = os.environ.get(WEBHOOK)
    if not address:
        return
    text = f"{flow.name} {flow_run.name}: {state.name}: {state.message or ''}".strip()
    body = {"text": text, "flow": flow.name, "run": str(flow_run.id), "state": state.name}
    try:
        request = urllib.request.Request(
            address, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10):
            pass
    except (OSError, ValueError) as error:
        # Its text may hold the address, which is a secret.
        print(f"warning: the webhook was not reached: {type(error).__name__}", file=sys.stderr)


@flow(name="retrain", on_failure=[notify], on_crashed=[notify])
def retrain(force: bool = False, stage_hours: float = STAGE_HOURS) -> State[Any]:
    """Run the pipeline, then let the new model meet the champion.

    Parameters
    ----------
    force
        Train, even if data, parameters and code are those of the last training.
    stage_hours
        A stage is ended after this many hours.
    """
    try:
        with lock.take(stage.ROOT) as held:
            # Before DVC, which removes a stage's old results before it starts the stage.
            params = load_params(stage.ROOT / "params.yaml")
            _tidy(held.left)
            data = params.data
            always = {DOWNLOAD} if data.source == "kaggle" and data.version == "latest" else set()
            names, changed = _ask_dvc()
            if not (force or always or changed or held.left):
                return _up_to_date()
            return _pipeline(held, names, always | ({TRAIN} if force else set()), stage_hours)
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
        Further options of `colorized colorize`, as one types them: ["--steps", "20"].
    hours
        The batch is ended after this many hours.
    """
    done: State[Any] = _colorize(inputs, out, options or [], hours * 3600, return_state=True)
    return State(type=done.type, name=done.name, message=done.message)


def schedule(cron: str, name: str, timezone: str, force: bool) -> None:
    """Serve `retrain` from this machine until Ctrl-C.

    Raises
    ------
    BadSchedule
        The cron line or the time zone is not one.
    ValueError
        There is no Prefect server.
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
        parameters={"force": force},
        limit=1,
        entrypoint_type=EntrypointType.MODULE_PATH,
        print_starting_message=False,
    )


def _pipeline(held: lock.Lock, names: list[str], forced: set[str], hours: float) -> State[Any]:
    """All stages, in a parent run of MLflow that gets their status, then the promotion."""
    sha = _output("git", "rev-parse", "HEAD") or "unknown"
    about = {"git_sha": sha, "prefect_run": str(runtime.flow_run.id)}
    title = f"retrain {runtime.flow_run.name}"
    run = tracking.Run.start(stage.ROOT, title, {"force": TRAIN in forced}, about)
    held.note(mlflow_run=run.run_id, prefect_run=str(runtime.flow_run.id))
    url = tracking.run_url(run.run_id)
    os.environ[tracking.PARENT] = run.run_id
    status = "KILLED"
    try:
        state = _stages(names, forced, hours, held)
        if state.is_failed():
            status = "FAILED"
        else:
            run.tags(_md5s())
            status = "FINISHED"
    except (OSError, ValueError):
        status = "FAILED"
        raise
    finally:
        del os.environ[tracking.PARENT]
        run.finish(status)
    create_link_artifact(url, "MLflow run", key="mlflow-run", description=f"run {run.run_id}")
    return state


def _stages(names: list[str], forced: set[str], hours: float, held: lock.Lock) -> State[Any]:
    if TRAIN in forced:
        _forget_training()
    outcome: Outcome = {}
    for name in names:
        run, started = _task(name), time.time()
        done: Any = run(name, name in forced, hours * 3600, held.file, return_state=True)
        if name != TRAIN and done.name != "Unchanged":  # a training has a run of its own
            _note(name, started, "FINISHED" if done.is_completed() else "FAILED")
        if not done.is_completed():
            return Failed(message=done.message)
        outcome[name] = done.name.lower()
    changed = [name for name, what in outcome.items() if what != "unchanged"]
    if set(changed) <= {DOWNLOAD}:
        return _up_to_date()
    _show_results()
    what = ", ".join(f"{name} {outcome[name]}" for name in changed)
    return _with_promotion(what if TRAIN in changed else f"nothing retrained: {what}")


def _note(name: str, started: float, status: str) -> None:
    """A child run for a stage: when it ran, its parameters, the md5 of its results."""
    params = load_params(stage.ROOT / "params.yaml").model_dump()
    section = {"data": params["data"]} if name == DOWNLOAD else {name: params.get(name, {})}
    parent = os.environ[tracking.PARENT]
    run = tracking.Run.start(stage.ROOT, name, section, _md5s(name), parent, started)
    run.finish(status)


def _forget_training() -> None:
    """Remove the checkpoint of a finished training, from which there would be nothing to train.

    That of an unfinished one, which has written no models/run.json, is gone on from.
    """
    if stage.RUN.exists():
        name = json.loads(stage.RUN.read_text(encoding="utf-8"))["fingerprint"]
        shutil.rmtree(stage.CHECKPOINTS / name, ignore_errors=True)


def _up_to_date() -> State[Any]:
    message = "up to date, nothing retrained"
    create_markdown_artifact(
        f"Data, parameters and code are those of the last run: {message}.", key="result"
    )
    # A model that could not meet the champion last time does so now.
    return _with_promotion(message, name="Up to date")


def _with_promotion(message: str, name: str | None = None) -> State[Any]:
    promoted: Any = _promote(return_state=True)
    if not promoted.is_completed():
        return Failed(message=promoted.message)
    return Completed(name=name, message=f"{message}; {promoted.message}")


def _task(name: str) -> Task[Any, Any]:
    again = {"retries": RETRIES, "retry_delay_seconds": exponential_backoff(BACKOFF_SECONDS)}
    options: dict[str, Any] = again if name == DOWNLOAD else {}
    return _reproduce.with_options(name=name, task_run_name=name, **options)


@task(cache_policy=NO_CACHE)
def _reproduce(name: str, force: bool, seconds: float, file: int | None) -> State[Any]:
    """One stage, by DVC, which runs it if anything it depends on changed."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", name]
    lines, problem = _follow(command + ["--force"] * force, seconds, file)
    if problem:
        return Failed(message=f"{name}: {problem}")
    for what, pattern in SAYS.items():
        if any(pattern.match(line) for line in lines):
            return Completed(name=what.capitalize(), message=f"{name} {what}")
    return Completed(name="Unchanged", message=f"{name}: nothing it depends on changed")


@task(name="promote", task_run_name="promote", cache_policy=NO_CACHE)
def _promote() -> State[Any]:
    """The new model meets the champion."""
    from pipelines.promote import promote

    try:
        verdict = promote(stage.ROOT)
    except (OSError, ValueError) as error:
        return Failed(message=f"promotion: {' '.join(str(error).split())}")
    message = f"{'promoted' if verdict.promoted else 'not promoted'}: {'; '.join(verdict.reasons)}"
    create_markdown_artifact(message, key="promotion", description="against the champion")
    return Completed(message=message)


@task(name="colorize", task_run_name="colorize", cache_policy=NO_CACHE)
def _colorize(inputs: list[Path], out: Path, options: list[str], seconds: float) -> State[Any]:
    command = [sys.executable, "-m", "colorized", "colorize", *map(str, inputs), "-o", str(out)]
    lines, problem = _follow([*command, *options], seconds)
    notes = [line for line in lines if line.startswith(("error: ", "warning: "))]
    colored = len(lines) - len(notes)
    summary = [f"{colored} photographs colored, in `{out}`", *(f"- {note}" for note in notes)]
    create_markdown_artifact("\n\n".join(summary), key="colorized")
    return Failed(message=problem) if problem else Completed(message=summary[0])


def _follow(
    command: Sequence[str], seconds: float, file: int | None = None
) -> tuple[list[str], str]:
    """Run a command with its output in the log; its lines, and in one line what went wrong."""
    log = get_run_logger()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        log.info("%s", line)

    code = follow(command, say, seconds, () if file is None else (file,))
    if code is None:
        return lines, f"ended after {seconds / 3600:g} hours, its time limit"
    errors = [line for line in lines if line.lower().startswith("error: ")] or [f"exit code {code}"]
    # The first error is the stage's own, those after it are DVC's, of the stage.
    return lines, errors[0].partition(": ")[2] or errors[0] if code else ""


def follow(
    command: Sequence[str],
    say: Callable[[str], None],
    seconds: float,
    inherit: Sequence[int] = (),
) -> int | None:
    """Run `command` in a process group of its own, giving `say` each line of its output.

    Whatever ends the wait, the time limit or an exception such as Ctrl-C, ends the whole group:
    SIGTERM, `GRACE_SECONDS` to write a checkpoint, SIGKILL. Returns the exit code, or None where
    the time limit of `seconds` ended it.
    """
    with subprocess.Popen(
        command,
        cwd=stage.ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=inherit,
    ) as process:
        assert process.stdout is not None
        late = threading.Event()
        killer = threading.Timer(GRACE_SECONDS, _send, [process.pid, signal.SIGKILL])

        def end() -> None:
            _send(process.pid, signal.SIGTERM)
            killer.start()

        def too_late() -> None:
            late.set()
            end()

        timer = threading.Timer(seconds, too_late)
        timer.start()
        try:
            for line in _lines(process.stdout):
                say(line)
            code = process.wait()
        except BaseException:
            timer.cancel()
            if not late.is_set():
                end()
            _drain(process.stdout, say)
            raise
        finally:
            timer.cancel()
            killer.cancel()
            _send(process.pid, signal.SIGKILL)
    return None if late.is_set() else code


def _drain(stream: IO[bytes], say: Callable[[str], None]) -> None:
    """Read until the last process of the group has ended, however often one is asked to stop."""
    while True:
        try:
            for line in _lines(stream):
                say(line)
            return
        except (KeyboardInterrupt, TerminationSignal):  # of a canceled run, Prefect sends two
            continue


def _send(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _environment() -> dict[str, str]:
    """What a stage gets: this Python first, no secret of ours, progress as on a terminal."""
    values = {name: value for name, value in os.environ.items() if name != WEBHOOK}
    return values | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        "TTY_COMPATIBLE": "1",  # rich draws its bars, which `_lines` thins
        "TERM": "xterm",
        "NO_COLOR": "1",
        "COLUMNS": "100",
    }


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines as they come, without the redrawn states of progress bars, all but a few."""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    rest, shown = "", time.monotonic()
    while chunk := os.read(stream.fileno(), 65536):
        *lines, rest = (rest + decode(chunk)).split("\n")
        for line in lines:
            if text := _clean(line.rstrip("\r").rpartition("\r")[2]):
                yield text
        before, redrawn, rest = rest.rpartition("\r")
        rest = redrawn + rest
        now = time.monotonic()
        bar = _clean(before.rpartition("\r")[2])
        if bar and now - shown >= BAR_SECONDS:
            shown = now
            yield bar
    if text := _clean(rest.rpartition("\r")[2]):
        yield text


def _clean(text: str) -> str:
    return tracking.redact(ANSI.sub("", text)).rstrip()


def _ask_dvc() -> tuple[list[str], bool]:
    """The stages in the order DVC runs them, and whether any would be run."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro

    try:
        with Repo(str(stage.ROOT)) as repo:
            return [s.addressing for s in plan_repro(repo.index.graph)], bool(repo.status())
    except DvcException as error:
        raise ValueError(f"DVC: {error}") from error


def _md5s(*names: str) -> dict[str, str]:
    """DVC's md5 of every result of these stages, or of all, as dvc.lock has them."""
    lock_file = stage.ROOT / "dvc.lock"
    if not lock_file.exists():  # of a first run whose first stage failed
        return {}
    stages = YAML(typ="safe").load(lock_file.read_text(encoding="utf-8"))["stages"]
    chosen = (entry for name, entry in stages.items() if name in (names or stages))
    outs = (out for entry in chosen for out in entry.get("outs", []))
    return {f"dvc.{out['path']}": out["md5"] for out in outs}


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=stage.ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _show_results() -> None:
    """The table of metrics and the picture grid, for the page of the run."""
    values = json.loads(stage.METRICS.read_text(encoding="utf-8"))
    rows = (f"| {k} | {f'{v:.4g}' if isinstance(v, float) else v} |" for k, v in values.items())
    table = "\n".join(["| metric | value |", "|---|---:|", *rows])
    create_markdown_artifact(table, key="metrics", description="of the test split")
    with Image.open(stage.GRID) as grid:
        grid.thumbnail((GRID_PIXELS, GRID_PIXELS))
        jpeg = io.BytesIO()
        grid.convert("RGB").save(jpeg, "JPEG", quality=85)
    data = base64.b64encode(jpeg.getvalue()).decode()
    # An artifact of type image would show the address of the picture as well: all these letters.
    create_markdown_artifact(
        f"![picture grid](data:image/jpeg;base64,{data})",
        key="grid",
        description="test photographs",
    )


def _tidy(left: dict[str, str]) -> None:
    """Close what a killed run left open in MLflow and in Prefect."""
    run = left.get("mlflow_run") and tracking.Run.reopen(stage.ROOT, left["mlflow_run"])
    if run:
        run.finish("KILLED")
    if "prefect_run" in left:
        with get_client(sync_client=True) as client, suppress(ObjectNotFound):
            run_id = UUID(left["prefect_run"])
            state = client.read_flow_run(run_id).state
            if state is not None and not state.is_final():
                client.set_flow_run_state(run_id, Crashed(message="it was killed"), force=True)
