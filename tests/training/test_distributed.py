"""Training in two processes over gloo: the curve of one, equal states, exact resuming."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
import torch
from commands import python
from test_loop import tensors

from colorized.data.dataset import Shard
from colorized.training.checkpoint import load_checkpoint
from colorized.training.distributed import Processes, open_processes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def launch(
    folder: Path, name: str, *, stop: int | None = None, count: int = 2, **settings: Any
) -> list[list[float]]:
    """Train in `count` processes that torchrun begins; number, loss and norm of each step."""
    (folder / name).mkdir(exist_ok=True)
    values = json.dumps({"name": name, "settings": settings, "stop": stop})
    done = python(
        "-W", "ignore", "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}",
        ROOT / "tests" / "ranks.py", folder, values, PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    curve: list[list[float]] = json.loads((folder / name / "curve.json").read_text())
    return curve


@pytest.fixture(scope="module")
def folder(shard: Shard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shard in it."""
    path = tmp_path_factory.mktemp("ranks")
    np.save(path / "train_L.npy", shard.L)
    np.save(path / "train_ab.npy", shard.ab)
    return path


@pytest.fixture(scope="module")
def two(folder: Path) -> list[list[float]]:
    """The curve of two processes."""
    return launch(folder, "two")


def alone(shard: Shard, folder: Path, **settings: Any) -> tuple[Any, list[list[float]]]:
    state, steps = ranks.run(Processes(CPU), shard, folder, settings, None)
    return state, [[step.number, step.loss, step.gradient_norm] for step in steps]


def test_two_processes_have_the_curve_of_one(
    shard: Shard, folder: Path, tmp_path: Path, two: list[list[float]]
) -> None:
    state, one = alone(shard, tmp_path)
    assert [row[0] for row in one] == [row[0] for row in two] == [1, 2, 3, 4, 5, 6]
    assert np.array(two) == pytest.approx(np.array(one), rel=2e-3)
    trained = load_checkpoint(folder / "two" / "state-0.pt")["network"]
    for name, tensor in state.denoiser.network.state_dict().items():
        assert torch.allclose(trained[name], tensor, atol=2e-3), name
    # Negative control: a slice that sees the noise of another would leave the curve.
    _, other = alone(shard, tmp_path / "other", seed=1)
    assert np.array(two) != pytest.approx(np.array(other), rel=2e-3)


def test_processes_stay_equal_to_the_bit(folder: Path, two: list[list[float]]) -> None:
    states = [dict(tensors(load_checkpoint(folder / "two" / f"state-{r}.pt"))) for r in (0, 1)]
    assert [n for n, t in states[0].items() if not torch.equal(t, states[1][n])] in (
        [],
        [".seconds"],
    )


def test_two_stopped_processes_go_on_to_the_same_bits(folder: Path, two: list[list[float]]) -> None:
    first = launch(folder, "stopped", stop=3)
    assert len(first) == 3
    rest = launch(folder, "stopped")
    assert first + rest == two
    whole, resumed = (
        dict(tensors(load_checkpoint(folder / name / "state-1.pt"))) for name in ("two", "stopped")
    )
    assert {n for n, t in whole.items() if not torch.equal(t, resumed[n])} <= {".seconds"}


def test_accumulated_pieces_have_the_curve_of_the_whole_batch(
    shard: Shard, folder: Path, tmp_path: Path, two: list[list[float]]
) -> None:
    _, one = alone(shard, tmp_path / "one")
    _, pieces = alone(shard, tmp_path / "four", accumulate=4)
    assert np.array(pieces) == pytest.approx(np.array(one), rel=2e-3)
    both = launch(folder, "both", accumulate=2)
    assert np.array(both) == pytest.approx(np.array(one), rel=2e-3)


def test_processes_share_one_clock(folder: Path) -> None:
    """With a budget of time, too, learning rates and weights are equal."""
    launch(folder, "timed", minutes=0.02, steps=1000)
    states = [dict(tensors(load_checkpoint(folder / "timed" / f"state-{r}.pt"))) for r in (0, 1)]
    assert [n for n, t in states[0].items() if not torch.equal(t, states[1][n])] == []
    assert states[0][".seconds"] >= 0.02 * 60


def test_batch_that_cannot_be_shared_out_is_named(shard: Shard) -> None:
    with pytest.raises(ValueError, match="batch_size 4 cannot be shared out evenly among 1 proc"):
        ranks.fresh(Processes(CPU), accumulate=3)


@pytest.mark.parametrize(
    ("variables", "device", "expected"),
    [
        ({"MASTER_ADDR": "127.0.0.1"}, "cpu", "began one process of several"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, "cuda:0", "need cpu, or cuda for a GPU"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "LOCAL_RANK": "1"}, "cuda", "'cuda:1'"),
    ],
)
def test_processes_that_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], device: str, expected: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=expected):
        open_processes(device)


def test_one_process_needs_no_accelerate() -> None:
    code = (
        "import sys; sys.modules['accelerate'] = None\n"
        "from colorized.training.distributed import open_processes\n"
        "import colorized.training.fit\n"
        "print(open_processes('cpu').world)"
    )
    assert python("-c", code).stdout == "1\n"
