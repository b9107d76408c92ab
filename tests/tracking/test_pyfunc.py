"""The served model: the real server of MLflow, asked over HTTP as a user asks it."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import skimage.color
from commands import python
from mlflow_server import Process, free_port
from pictures import encoded, gray
from PIL import Image

from colorized import photo
from colorized.model.weights import RELEASED
from colorized.photo import provenance
from colorized.tracking import Registry, Run, champion

pytestmark = pytest.mark.slow

PIPELINE = Path(__file__).resolve().parents[2] / "docs" / "pipeline.md"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose champion are the released weights."""
    root = tmp_path_factory.mktemp("served")
    registry = Registry(root, create=True)
    run = Run.start(root, "train", {}, {})
    sha256 = hashlib.sha256(RELEASED.read_bytes()).hexdigest()
    version = champion.register(registry, run, RELEASED, {"weights_sha256": sha256})
    registry.set_alias("champion", version)
    return root


# Put before all else on the path, it hides this package, but for a copy that a model has with it,
# and every package that the model does not ask for.
ELSEWHERE = """
import importlib.machinery, sys

class Elsewhere:
    def find_spec(self, name, path=None, target=None):
        if name == "colorized":
            folders = [folder for folder in sys.path if folder.endswith("/code")]
            found = importlib.machinery.PathFinder.find_spec(name, folders)
            if found is not None:
                return found
        if not name.startswith("colorized.") and name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"no {{name}} here", name=name)

sys.meta_path.insert(0, Elsewhere())
"""


def hidden() -> list[str]:
    """Top-level modules of packages that a version's requirements do not lead to."""
    from colorized.tracking.pyfunc import NEEDED

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    known, todo = {"setuptools", "pip"}, {plain(name) for name in NEEDED}
    while todo:
        name = todo.pop()
        known.add(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        needed = [line for line in lines if "extra ==" not in line]
        todo |= {plain(re.split(r"[\s<>=!~;\[(]", line)[0]) for line in needed} - known
    owners = importlib.metadata.packages_distributions()
    return sorted(top for top, names in owners.items() if not known & set(map(plain, names)))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine without the project, and with what a version asks for alone."""
    folder = tmp_path_factory.mktemp("elsewhere")
    names = hidden()
    assert {"colorized", "dvc", "prefect"} <= set(names)
    (folder / "sitecustomize.py").write_text(ELSEWHERE.format(hidden=set(names)))
    environment = {"PYTHONPATH": str(folder)}
    failed = python("-c", "import colorized", cwd=folder, **environment)
    assert "no colorized here" in failed.stderr
    return environment


@pytest.fixture(scope="module")
def address(project: Path, elsewhere: dict[str, str]) -> Iterator[str]:
    """The command of docs/pipeline.md, on a machine that has the store alone."""
    port = free_port()
    command = [
        sys.executable, "-W", "ignore", "-m", "mlflow", "models", "serve",
        "-m", "models:/colorized@champion", "--env-manager", "local",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}", **elsewhere}
    server = Process(command, f"{uri}/ping", project / "served.log", **environment)
    yield f"{uri}/invocations"
    server.signal(signal.SIGKILL)


def ask(address: str, images: list[Any], **params: Any) -> Any:
    """The pictures of the answer, or what the server says of the request: (status, text)."""
    kinds = [column_of(image) for image in images]
    columns = sorted(set(kinds)) or ["image"]
    rows = [[i if c == k else None for c in columns] for i, k in zip(images, kinds, strict=True)]
    body: dict[str, Any] = {"dataframe_split": {"columns": columns, "data": rows}}
    if params:
        body["params"] = params
    answer = httpx.post(address, json=body, timeout=120)
    if answer.status_code != 200:
        return answer.status_code, answer.text
    return [row["image"] for row in answer.json()["predictions"]]


def column_of(image: Any) -> str:
    """The column in which a request has a picture of this kind."""
    if isinstance(image, str):
        return "image"
    return "rgb" if isinstance(image[0][0], list) else "gray"


def scan(index: int, size: tuple[int, int], format: str = "JPEG") -> bytes:
    return encoded(gray(index, size), format)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def test_curl_gets_a_photograph_in_color(address: str, tmp_path: Path) -> None:
    original = scan(0, (90, 61))
    (tmp_path / "photo.jpg").write_bytes(original)
    asking = ('echo "{', "curl -sS", "python -c 'import base64, json")
    lines = [line for line in PIPELINE.read_text().splitlines() if line.startswith(asking)]
    assert len(lines) == len(asking)
    script = "\n".join(lines).replace("http://127.0.0.1:5001/invocations", address)
    subprocess.run(["bash", "-ec", script], cwd=tmp_path, check=True)
    answer = (tmp_path / "color.png").read_bytes()
    assert answer.startswith(b"\x89PNG")
    colored, gray = pixels(answer), pixels(original)
    assert colored.shape == (61, 90, 3)
    assert np.ptp(colored.astype(int), axis=-1).max() > 10
    L, L_out = (skimage.color.rgb2lab(v)[..., 0] for v in (gray, colored))
    assert np.abs(L_out - L).max() <= 0.6

    made = provenance.parse(photo.read_xmp(tmp_path / "color.png"))
    assert made.original_sha256 == hashlib.sha256(original).hexdigest()
    sha256 = hashlib.sha256(RELEASED.read_bytes()).hexdigest()
    assert made.weights_sha256 == sha256


def test_several_pictures_each_as_alone(address: str) -> None:
    one, two = text(scan(1, (40, 32))), text(scan(2, (31, 60), "PNG"))
    both = ask(address, [one, two], steps=2, seed=3)
    assert [pixels(base64.b64decode(p)).shape for p in both] == [(32, 40, 3), (60, 31, 3)]
    assert ask(address, [two], steps=2, seed=3) == both[1:]
    assert ask(address, [two], steps=2, seed=4) != both[1:]


def test_parameters_and_arrays(address: str) -> None:
    data = scan(1, (24, 20), "PNG")
    gray = pixels(data)
    for image in (text(data), gray[..., 0].tolist(), gray.tolist()):
        (colored,) = ask(address, [image], steps=1, output="array", saturation=0.0)
        np.testing.assert_array_equal(colored, gray)
    (vivid,) = ask(address, [text(data)], steps=1, output="array", saturation=2.0)
    assert np.ptp(np.array(vivid), axis=-1).max() > 10


@pytest.mark.parametrize(
    ("images", "params", "words"),
    [
        ([text(b"words")], {}, "picture 0: no picture of a known format"),
        (["*"], {}, "picture 0: the file is empty"),
        ([text(scan(0, (20, 20), "PNG")), text(b"")], {}, "picture 1: the file is empty"),
        ([text(scan(0, (20, 20)))[:-40]], {}, "picture 0: cannot be read"),
        ([[[1, 2], [3]]], {}, "gray: rows of levels must be of one length"),
        ([[[300]]], {}, "whole numbers of 0 … 255"),
        ([text(scan(0, (4, 4)))] * 17, {}, "a request holds 1 to 16 pictures, got 17"),
        ([], {}, "a request holds 1 to 16 pictures, got 0"),
        ([text(scan(0, (6000, 6000), "PNG"))], {}, "6000 × 6000 pixels are more than"),
        ([text(scan(0, (4, 4)))], {"steps": 0}, "steps must be in 1 … 1000, got 0"),
        ([text(scan(0, (4, 4)))], {"guidance": 11.0}, "guidance must be in 0 … 10, got 11.0"),
        ([text(scan(0, (4, 4)))], {"temperature": -1.0}, "temperature must be in 0 … 2, got -1.0"),
        ([text(scan(0, (4, 4)))], {"output": "gif"}, "output must be png or array, got 'gif'"),
        ([text(scan(0, (4, 4)))], {"seed": "one"}, "seed"),
    ],
)  # fmt: skip
def test_bad_requests_are_named(
    address: str, images: list[Any], params: dict[str, Any], words: str
) -> None:
    status, message = ask(address, images, **params)
    assert status == 400
    found = json.loads(message)["message"]
    assert words in found
    assert "Traceback" not in message and "/tmp" not in found
