"""Commands for retraining, promotion and lineage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from colorized.cli.messages import Failure, finite

Force = Annotated[bool, typer.Option("--force", help="Train even if nothing changed.")]
Commit = Annotated[
    bool, typer.Option("--commit", help="Commit dvc.lock, params.yaml and reports/ afterwards.")
]
Push = Annotated[bool, typer.Option("--push", help="Commit, then push with DVC and git.")]


def retrain(
    force: Force = False,
    stage_hours: Annotated[
        float, typer.Option(min=0, callback=finite, help="Time limit of a stage.")
    ] = 48.0,
    commit: Commit = False,
    push: Push = False,
) -> None:
    """Run the pipeline once, now, as the schedule does: a Prefect flow."""
    _enter_project()
    from pipelines import flows

    state = flows.retrain(force, stage_hours, commit or push, push, return_state=True)
    if not state.is_completed():
        raise Failure(state.message or state.name)
    print(state.message)


def schedule(
    cron: Annotated[str, typer.Option(help='When to retrain: "0 3 * * 0" is Sundays at 3.')],
    name: Annotated[str, typer.Option(help="Name of the deployment in Prefect.")] = "weekly",
    timezone: Annotated[str, typer.Option(help="Time zone of --cron.")] = "UTC",
    force: Force = False,
    commit: Commit = False,
    push: Push = False,
) -> None:
    """Retrain on a schedule, from this machine, until Ctrl-C."""
    _enter_project()
    from pipelines import flows

    try:
        parameters = {"force": force, "commit": commit or push, "push": push}
        flows.schedule(cron, name, timezone, parameters)
    except flows.BadSchedule as error:
        raise typer.BadParameter(str(error)) from error


def promote(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure and compare; change nothing.")
    ] = False,
) -> None:
    """Make the newly trained weights the champion if they are better; print the reasons."""
    _enter_project()
    from pipelines import promote

    verdict = promote.promote(Path.cwd(), dry_run)
    promoted = "would be promoted" if dry_run else "promoted"
    print(f"{promoted if verdict.promoted else 'not promoted'}: {'; '.join(verdict.reasons)}")


def rollback() -> None:
    """Make the previous champion the champion again."""
    _enter_project()
    from pipelines import promote

    now, before = promote.rollback(Path.cwd())
    print(f"champion: version {now.number}; previous: version {before.number}")


def clean(
    keep: Annotated[
        int | None, typer.Option(min=0, help="Finished trainings to keep: keep.trainings.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed.")] = False,
) -> None:
    """Remove the checkpoints of all but the last finished trainings, here and in MLflow."""
    _enter_project()
    from colorized import tracking
    from colorized.params import load_params
    from colorized.training.housekeeping import remove_finished
    from pipelines import lock, stage

    root = Path.cwd()
    if keep is None:
        keep = load_params(root / "params.yaml").keep.trainings
    with lock.take(root):
        removed = remove_finished(stage.CHECKPOINTS, keep, dry_run)
        removed += tracking.Registry(root, create=True).remove_checkpoints(keep, dry_run)
    print("\n".join(removed) or "nothing to remove")


def import_run(
    file: Annotated[Path, typer.Argument(help="File of a run in models/unsent.")],
) -> None:
    """Import the run of a machine without MLflow."""
    from colorized import tracking

    run_id, new = tracking.import_run(Path.cwd(), file)
    print(f"{file}: {'imported as' if new else 'was imported before, as'} {run_id}")


def lineage(
    photograph: Annotated[Path, typer.Argument(help="A photograph that was colored.")],
) -> None:
    """Print what colored a photograph: weights, training run, commit, data, parameters.

    Works in the project's folder, with the server of MLFLOW_TRACKING_URI if that is set.
    """
    from colorized.tracking import lineage

    for fact in lineage.trace(photograph, Path.cwd()):
        print(fact)


def _enter_project() -> None:
    """Make `pipelines` importable, which is in the project's folder, not in the package."""
    if not Path("pipelines", "flows.py").is_file():
        raise Failure("run this in the project's folder")
    sys.path.insert(0, str(Path.cwd()))
