"""Commands for retraining, promotion and lineage."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from colorized.cli.messages import Failure, finite

force_option = click.option("--force", is_flag=True, help="Train even if nothing changed.")
commit_option = click.option(
    "--commit", is_flag=True, help="Commit dvc.lock, params.yaml and reports/ afterwards."
)
push_option = click.option("--push", is_flag=True, help="Commit, then push with DVC and git.")


@click.command()
@force_option
@click.option(
    "--stage-hours",
    type=click.FloatRange(0),
    default=48,
    callback=finite,
    help="Time limit of a stage.",
)
@commit_option
@push_option
def retrain(force: bool, stage_hours: float, commit: bool, push: bool) -> None:
    """Run the pipeline once, now, as the schedule does: a Prefect flow."""
    _enter_project()
    from pipelines import flows

    state = flows.retrain(force, stage_hours, commit or push, push, return_state=True)
    if not state.is_completed():
        raise Failure(state.message or state.name)
    print(state.message)


@click.command()
@click.option("--cron", required=True, help='When to retrain: "0 3 * * 0" is Sundays at 3.')
@click.option("--name", default="weekly", help="Name of the deployment in Prefect.")
@click.option("--timezone", default="UTC", help="Time zone of --cron.")
@force_option
@commit_option
@push_option
def schedule(cron: str, name: str, timezone: str, force: bool, commit: bool, push: bool) -> None:
    """Retrain on a schedule, from this machine, until Ctrl-C."""
    _enter_project()
    from pipelines import flows

    try:
        parameters = {"force": force, "commit": commit or push, "push": push}
        flows.schedule(cron, name, timezone, parameters)
    except flows.BadSchedule as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option("--dry-run", is_flag=True, help="Measure and compare; change nothing.")
def promote(dry_run: bool) -> None:
    """Make the newly trained weights the champion if they are better; print the reasons."""
    _enter_project()
    from pipelines import promote

    verdict = promote.promote(Path.cwd(), dry_run)
    promoted = "would be promoted" if dry_run else "promoted"
    print(f"{promoted if verdict.promoted else 'not promoted'}: {'; '.join(verdict.reasons)}")


@click.command()
def rollback() -> None:
    """Make the previous champion the champion again."""
    _enter_project()
    from pipelines import promote

    now, before = promote.rollback(Path.cwd())
    print(f"champion: version {now.number}; previous: version {before.number}")


@click.command()
@click.option("--keep", type=click.IntRange(0), help="Finished trainings to keep: keep.trainings.")
@click.option("--dry-run", is_flag=True, help="List what would be removed.")
def clean(keep: int | None, dry_run: bool) -> None:
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


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def import_run(file: Path) -> None:
    """Import the run of a machine without MLflow.

    FILE is that of the run, in its models/unsent.
    """
    from colorized import tracking

    _enter_project()
    run_id, new = tracking.import_run(Path.cwd(), file)
    print(f"{file}: {'imported as' if new else 'was imported before, as'} {run_id}")


@click.command()
@click.argument("photograph", type=click.Path(path_type=Path))
def lineage(photograph: Path) -> None:
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
