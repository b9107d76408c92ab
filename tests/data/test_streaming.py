"""Pictures in an S3-compatible store: those that were written, each chunk once, and no half set."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import s3fs
import torch
from s3_server import BUCKET, S3Server, environment
from trainings import noise

from colorized import storage
from colorized.data import streaming
from colorized.data.dataset import CropBatches, Shard, batches
from colorized.data.streaming import WINDOW, StorageError, Stream, StreamWriter, open_stream

pytestmark = pytest.mark.slow

URL = f"s3://{BUCKET}/lab/train"
SIDE, ROWS = 32, 40
CHUNK = ROWS * 3 * SIDE**2
ENOUGH = (WINDOW + 2) * CHUNK


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server() as running:
        point_to(running.endpoint, monkeypatch)
        yield running


def point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)


def write(pictures: Shard, chunk_bytes: int = CHUNK) -> StreamWriter:
    with StreamWriter(URL, chunk_bytes) as writer:
        for i in range(0, len(pictures), 7):  # in pieces, as photographs' crops come
            writer.append(pictures.L[i : i + 7], pictures.ab[i : i + 7])
    return writer


def one_line(error: BaseException) -> str:
    message = str(error)
    assert "\n" not in message
    assert message.startswith(URL)
    return message


def test_pictures_are_those_that_were_written(server: S3Server, tmp_path: Path) -> None:
    pictures = noise(3 * ROWS + 5, SIDE)
    writer = write(pictures)
    names = [*(f"chunk-{i}.bin" for i in range(4)), "index.json"]
    assert server.stored() == [f"lab/train/{name}" for name in names]

    stream = open_stream(URL, tmp_path, ENOUGH, writer.sha256)
    assert len(stream) == len(pictures)
    assert stream.size == SIDE
    for rows in (slice(None), np.array([124, 3, 3, 80])):
        ours, local = stream.batch(rows), pictures.batch(rows)
        assert torch.equal(ours.lightness, local.lightness)
        assert torch.equal(ours.ab, local.ab)
    asked = server.asked.total()
    open_stream(URL, tmp_path, ENOUGH).batch(slice(None))
    assert server.asked.total() == asked + 1  # the index; the chunks are here


def test_each_chunk_is_fetched_once_an_epoch_and_few_are_kept(
    server: S3Server, tmp_path: Path
) -> None:
    pictures = noise(30 * ROWS, SIDE)
    write(pictures)
    stream = open_stream(URL, tmp_path, ENOUGH)
    orders = [stream.order(0, epoch) for epoch in range(2)]
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(len(pictures)))
    assert not np.array_equal(*orders)
    # Mixed: neighbors come from several chunks, and a chunk's rows come far apart.
    near = orders[0].reshape(-1, 16) // ROWS
    assert np.mean([len(np.unique(chunks)) for chunks in near]) > 5

    server.asked.clear()
    crops = CropBatches(stream, 16, SIDE, 0.0, 0)
    most = 0
    for step in range(len(pictures) // 16):
        crops[step]
        most = max(most, sum(path.stat().st_size for path in tmp_path.glob("*/*.*")))
    fetched = [n for (method, key), n in server.asked.items() if key.endswith(".bin")]
    assert len(fetched) == 30
    assert sum(fetched) <= 33
    assert CHUNK < most <= ENOUGH < 30 * CHUNK / 2


def test_few_chunks_are_mixed_as_one() -> None:
    chunks = tuple(streaming.Chunk(f"chunk-{i}.bin", 100 * i, 100, 0, "") for i in range(2))
    order = Stream(URL, 3, chunks, "", Path(), 0).order(0, 0)
    assert 30 < (order[:100] < 100).sum() < 70


def test_workers_and_a_second_start_see_the_same_batches(server: S3Server, tmp_path: Path) -> None:
    write(noise(3 * ROWS, SIDE))
    crops = CropBatches(open_stream(URL, tmp_path, ENOUGH), 8, SIDE, 0.5, 0)
    alone = list(batches(crops, range(6)))
    resumed = batches(crops, range(4, 10**9), workers=1)
    for batch, expected in zip(islice(resumed, 2), alone[4:], strict=True):
        assert torch.equal(batch.ab, expected.ab)
    for path in tmp_path.glob("*/*.bin"):
        path.unlink()
    server.stop()
    with pytest.raises(StorageError, match="Could not connect") as caught:
        list(resumed)
    assert one_line(caught.value).startswith(f"{URL}/chunk-")


WRITE = f"""
import numpy as np
from colorized.data.streaming import StreamWriter
with StreamWriter({URL!r}, {CHUNK}) as writer:
    while True:
        writer.append(np.zeros(({ROWS}, 32, 32), np.uint8), np.zeros(({ROWS}, 32, 32, 2), np.uint8))
        print(writer.rows, flush=True)
"""


def test_killed_upload_is_no_set_and_the_next_one_is(server: S3Server, tmp_path: Path) -> None:
    write(noise(ROWS, SIDE))  # an older set, which must not show through
    with subprocess.Popen(
        [sys.executable, "-c", WRITE],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        for _ in range(4):
            assert process.stdout.readline()
        assert not list(tmp_path.iterdir())
        process.send_signal(signal.SIGKILL)
    assert len(server.stored()) >= 3
    with pytest.raises(StorageError, match="not written, or not to its end") as caught:
        open_stream(URL, tmp_path, ENOUGH)
    one_line(caught.value)

    pictures = noise(ROWS + 1, SIDE)
    write(pictures)
    assert len(server.stored()) == 3  # nothing is left of the killed one
    stream = open_stream(URL, tmp_path, ENOUGH)
    assert torch.equal(stream.batch(slice(None)).ab, pictures.batch(slice(None)).ab)


def test_writer_that_fails_publishes_nothing(server: S3Server, tmp_path: Path) -> None:
    pictures = noise(2 * ROWS, SIDE)

    def fail() -> None:
        with StreamWriter(URL, CHUNK) as writer:
            writer.append(pictures.L, pictures.ab)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert server.stored()
    with pytest.raises(StorageError, match="not written"):
        open_stream(URL, tmp_path, ENOUGH)
    with pytest.raises(ValueError, match="no pictures to store"), StreamWriter(URL):
        pass

    server.fault = lambda method, key: "SlowDown" if key.endswith("-1.bin") else None
    with pytest.raises(StorageError, match="chunk-1.bin: .*SlowDown") as caught:
        write(pictures)
    one_line(caught.value)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("InvalidAccessKeyId", "refused the credentials"),
        ("AccessDenied", "refused the credentials"),
        ("NoSuchBucket", "no such bucket"),
        ("TeaPot", "TeaPot"),
    ],
)
def test_refusals_are_one_line(server: S3Server, tmp_path: Path, code: str, expected: str) -> None:
    server.fault = lambda method, key: code
    for use in (lambda: open_stream(URL, tmp_path, ENOUGH), StreamWriter(URL).__enter__):
        with pytest.raises(StorageError, match=expected) as caught:
            use()
        one_line(caught.value)


def test_bucket_and_credentials_that_are_missing(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match=r"^s3://other/x/index.json: .*no such bucket$"):
        open_stream("s3://other/x", tmp_path, ENOUGH)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match="credentials") as caught:
        open_stream(URL, tmp_path, ENOUGH)
    one_line(caught.value)


def test_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "READ_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        point_to(f"http://127.0.0.1:{mute.getsockname()[1]}", monkeypatch)
        with pytest.raises(StorageError, match="timeout") as caught:
            open_stream(URL, tmp_path, ENOUGH)
    one_line(caught.value)


def test_damage_is_found(server: S3Server, tmp_path: Path) -> None:
    pictures = noise(ROWS, SIDE)
    writer = write(pictures)
    stream = open_stream(URL, tmp_path, ENOUGH)
    key = "lab/train/chunk-0.bin"
    data = server.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()
    for damaged in (data[:-1], data[:-1] + bytes([data[-1] ^ 1])):
        server.client().put_object(Bucket=BUCKET, Key=key, Body=damaged)
        with pytest.raises(StorageError, match="damaged or replaced") as caught:
            stream.batch(slice(None))
        one_line(caught.value)
        assert not list(tmp_path.glob("*/*.*"))
    server.client().delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(StorageError, match="chunk-0.bin: not there"):
        stream.batch(slice(None))

    write(noise(ROWS + 1, SIDE))
    with pytest.raises(StorageError, match="another set"):
        open_stream(URL, tmp_path, ENOUGH, writer.sha256)
    for index in (b"{}", b"nothing", b'{"size": 3, "chunks": []}', b'{"chunks": [{"rows": 3}]}'):
        server.client().put_object(Bucket=BUCKET, Key="lab/train/index.json", Body=index)
        with pytest.raises(StorageError, match="not the index of a set"):
            open_stream(URL, tmp_path, ENOUGH)


def test_impossible_arguments_are_named(server: S3Server, tmp_path: Path) -> None:
    write(noise(12 * ROWS, SIDE))
    with pytest.raises(ValueError, match=f"cache_bytes {ENOUGH - 1}: {URL} needs {ENOUGH}"):
        open_stream(URL, tmp_path, ENOUGH - 1)
    for url in ("s3://bucket", "s3://bucket/a/", "s3:///folder", "https://bucket/a", "/folder"):
        for use in (lambda url: open_stream(url, tmp_path, ENOUGH), StreamWriter):
            with pytest.raises(ValueError, match=f"^{url}: expected s3://bucket/folder"):
                use(url)


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for use in (lambda: open_stream(URL, tmp_path, ENOUGH), lambda: write(noise(1, SIDE))):
        with pytest.raises(StorageError, match=r"pip install 'colorized\[s3\]'$"):
            use()
