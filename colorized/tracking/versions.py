"""Versions of the project: git's commit, changes from it, DVC's hashes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from colorized.tracking.runs import Entries
from colorized.tracking.store import output, redact

RECORDS = ("dvc.lock", "params.yaml")
"""Files that, beside the code, define a run."""
RESULTS = "reports/"
SHOWN = 20
"""Changed files that a tag names."""


class NotCommitted(ValueError):
    """One line that says why a retraining was not committed or not pushed."""


def describe(root: Path) -> dict[str, str]:
    """Tags of a run: the commit, and changed files, without results."""
    sha = output(root, "git", "rev-parse", "HEAD") or "unknown"
    dirty = _listed([name for name in changes(root) if not name.startswith(RESULTS)]) or "no"
    return {"git_sha": sha, "mlflow.source.git.commit": sha, "git_dirty": dirty}


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def changes(root: Path) -> list[str]:
    """Files that differ from the last commit or, of `RECORDS`, are not in it, seen from `root`."""
    tracked = output(root, "git", "diff", "--name-only", "--relative", "HEAD")
    new = output(root, "git", "ls-files", "--others", "--", *RECORDS)
    return sorted({*tracked.splitlines(), *new.splitlines()})


def log(run: Entries, root: Path) -> None:
    """Keep the files with a run that make it reproducible."""
    for name in RECORDS:
        if (root / name).exists():
            run.file(root / name, "version")


def read_lock(root: Path, text: str | None = None) -> dict[str, dict[str, str]]:
    """DVC's md5 of every output of every stage, as `dvc.lock`, or this text of one, has them."""
    if text is None:
        path = root / "dvc.lock"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    found: Mapping[str, Any] = YAML(typ="safe").load(text) or {}
    return {
        name: {out["path"]: out["md5"] for out in stage.get("outs", [])}
        for name, stage in found.get("stages", {}).items()
    }


def data_md5(root: Path) -> str:
    """DVC's hash of data/lab, as dvc.lock has it after the preprocess stage."""
    return read_lock(root).get("preprocess", {}).get("data/lab", "unknown")


def is_versioned(root: Path, path: str) -> bool:
    """Whether DVC or git has all files of a folder of photographs in a version."""
    places = [root / path, *(root / path).parents]
    if any(p.with_name(f"{p.name}.dvc").is_file() for p in places if p.name):
        return True
    tracked = output(root, "git", "ls-files", "--", path)
    others = ("git", "status", "--porcelain", "--untracked-files=all", "--ignored", "--", path)
    return bool(tracked) and not output(root, *others)


def commit_retraining(
    root: Path, photographs: str, message: str, push: bool, seconds: float | None = None
) -> str:
    """Commit the files that make a retraining reproducible; see `commit`.

    Raises NotCommitted, also when DVC does not track the folder of photographs.
    """
    if not is_versioned(root, photographs):
        raise NotCommitted(f"not committed: {unversioned(photographs)}")
    records = output(root, "git", "ls-files", "--others", "--cached", "*.dvc").splitlines()
    return commit(root, message, [*RECORDS, RESULTS.rstrip("/"), *records], push, seconds)


def unversioned(path: str) -> str:
    """One line on a folder of photographs that DVC does not track."""
    return (
        f"DVC does not track the photographs of {path}, so this training cannot be repeated: "
        f"`dvc add {path}` keeps them, git what it writes"
    )


def commit(
    root: Path, message: str, paths: list[str], push: bool, seconds: float | None = None
) -> str:
    """Commit these files, if they changed, and nothing else; returns the commit.

    Raises NotCommitted when other tracked files differ from the commit, git or DVC refuses or takes
    too long, or the disk is full.

    Parameters
    ----------
    paths
        Files and folders relative to `root`; missing and ignored ones are skipped.
    push
        Push data to DVC's remote and the branch to git's, in this order.
    seconds
        Time limit of each push, which then has no terminal, either.
    """
    mine = tuple(f"{path}/" for path in paths)
    others = [name for name in changes(root) if not f"{name}/".startswith(mine)]
    if others:
        raise NotCommitted(
            f"not committed: {_listed(others)} differ from the last commit; commit or restore them"
        )
    there = [path for path in paths if (root / path).exists()]
    ignored = set(output(root, "git", "check-ignore", "--", *there).splitlines())
    there = [path for path in there if path not in ignored]
    _run(root, "not committed", "git", "add", "--", *there)
    if output(root, "git", "diff", "--name-only", "--cached", "--", *there):
        _run(root, "not committed", "git", "commit", "--quiet", "-m", message, "--", *there)
    sha = output(root, "git", "rev-parse", "HEAD")
    if push:
        for command in ((sys.executable, "-m", "dvc", "push"), ("git", "push")):
            _run(root, "committed, not pushed", *command, seconds=seconds)
    return sha


def _run(root: Path, failed: str, *command: str, seconds: float | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            start_new_session=seconds is not None,  # of a push, which can ask nobody for a password
        )
    except subprocess.TimeoutExpired as error:
        name = " ".join(command[-2:])
        raise NotCommitted(f"{failed}: {name}: not done within {seconds:g} s") from error
    except OSError as error:
        raise NotCommitted(f"{failed}: {command[0]}: {error.strerror}") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and "hint:" not in line]
        reason = redact(" ".join(" ".join(said[:4]).split())) or f"exit code {done.returncode}"
        raise NotCommitted(f"{failed}: {reason}")
