"""The service under load, against the library in a loop; on one machine, over loopback only.

python benchmarks/web.py [--seconds 60] [--clients 50] [--queue 16] [--out FILE]

Clients send archive photographs as fast as they are answered, and come back when told that the
server is busy. Beside it, in a process of its own and before: the same photographs, one after the
other, read, colored and written as PNG by the library. The result goes to
benchmarks/results/web.json:

* failed requests, of which 429 is none;
* photographs a second, as a share of the library's;
* the 95th percentile of the time of a request, over queue length × the library's time of one;
* memory of the service with all its processes in the last third, over that in the first third;
* what drawing four photographs together would save, and how far their colors would change.

Rehearse with --seconds 10 --clients 8.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean

import httpx
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = sorted((ROOT / "data" / "sample" / "archive").glob("*.jpg"))
RESULTS = ROOT / "benchmarks" / "results" / "web.json"
MAX_CLIENTS, MAX_SECONDS = 200, 600
WARM_SECONDS = 3.0
BATCH = 4


@dataclass
class Load:
    """What clients saw.

    `times` are those of answered requests, in seconds.
    """

    times: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)


def library(seconds: float) -> dict[str, float]:
    """Photographs a second of a loop over the library, and the seconds of one."""
    from colorized import photo
    from colorized.api import Colorizer
    from colorized.model.weights import RELEASED
    from colorized.photo import provenance

    model = Colorizer(RELEASED, name="released")
    files = [path.read_bytes() for path in PHOTOGRAPHS]

    def color_one(data: bytes) -> bytes:
        picture = photo.read_photo(data)
        ab = model.sampler.colorize(picture.lightness)
        made = provenance.Marks(
            model=model.name,
            weights_sha256=model.weights_sha256,
            original_sha256=model.weights_sha256,
            data_sha256=model.data_sha256,
            **asdict(model.options),
        )
        return photo.encode_photo(picture, ab, "a.png", provenance.for_copy(made, picture, "a.png"))

    count = 0
    begin = warm = time.perf_counter()
    while (now := time.perf_counter()) - warm < seconds or count < len(files):
        if now - begin < WARM_SECONDS or warm == begin:
            warm, count = now, 0
        color_one(files[count % len(files)])
        count += 1
    rate = count / (time.perf_counter() - warm)
    return {"photographs_per_second": rate, "seconds_per_photograph": 1 / rate}


def batching() -> dict[str, float]:
    """Seconds of a photograph drawn among four, over one drawn alone; and the change of its ab."""
    import torch

    from colorized import photo
    from colorized.inference.colorizer import ChromaSampler
    from colorized.model.weights import RELEASED, load_weights
    from colorized.options import SamplingOptions

    colorizer = ChromaSampler(load_weights(RELEASED))
    small = colorizer.shrink(photo.read_photo(PHOTOGRAPHS[-1]).lightness)
    torch.manual_seed(0)

    def draw(count: int, options: SamplingOptions = colorizer.defaults) -> np.ndarray:
        stack = np.repeat(small[None], count, axis=0)
        return colorizer.draw(stack, options)

    def seconds(count: int) -> float:
        times = []
        for _ in range(8):
            begin = time.perf_counter()
            draw(count)
            times.append((time.perf_counter() - begin) / count)
        return min(times)

    alone, among = seconds(1), seconds(BATCH)
    # The first of a batch starts from the same noise as one that is drawn alone; noise of later
    # steps is drawn for all together.
    one = colorizer.defaults.override(steps=1)
    return {
        "time_of_one_in_four_over_alone": among / alone,
        "max_change_of_ab": float(np.abs(draw(BATCH, one)[0] - draw(1, one)[0]).max()),
    }


async def client(address: str, number: int, end: float, load: Load) -> None:
    """Send photographs until `end`."""
    async with httpx.AsyncClient(base_url=address, timeout=MAX_SECONDS) as http:
        turn = number
        while time.monotonic() < end:
            path = PHOTOGRAPHS[turn % len(PHOTOGRAPHS)]
            turn += 1
            begin = time.monotonic()
            try:
                answer = await http.post(
                    "/api/colorize",
                    files={"file": path.read_bytes()},
                )
            except httpx.HTTPError as error:
                load.outcomes[type(error).__name__] += 1
                continue
            load.outcomes[str(answer.status_code)] += 1
            if answer.status_code == 200:
                load.times.append(time.monotonic() - begin)
            elif answer.status_code == 429:
                await asyncio.sleep(float(answer.headers["retry-after"]))


async def watch(process: psutil.Process, end: float, memory: list[int]) -> None:
    """Resident memory of a process and its children, MB, twice a second."""
    while time.monotonic() < end:
        total = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                total += one.memory_full_info().uss
            except psutil.Error:
                continue
        memory.append(total >> 20)
        await asyncio.sleep(0.5)


async def under_load(
    address: str, pid: int, clients: int, seconds: float
) -> tuple[Load, list[int], float]:
    """What clients saw, the memory of the service, and the seconds that it all took."""
    warm = Load()
    await asyncio.gather(
        *(client(address, i, time.monotonic() + WARM_SECONDS, warm) for i in range(4))
    )
    load, memory = Load(), []
    begin = time.monotonic()
    end = begin + seconds
    await asyncio.gather(
        watch(psutil.Process(pid), end, memory),
        *(client(address, i, end, load) for i in range(clients)),
    )
    return load, memory, time.monotonic() - begin


def measure(seconds: float, clients: int, queue: int) -> dict[str, object]:
    """All of it."""
    me = [sys.executable, __file__, "--seconds", str(seconds)]
    parts = {}
    # With all cores for the network, whose threads must not spin while they wait for each other:
    # where anything else runs on the machine, a draw would take a hundred times longer.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    for part in ("library", "batching"):
        done = subprocess.run(
            [*me, "--part", part], env=environment, stdout=subprocess.PIPE, check=True
        )
        parts[part] = json.loads(done.stdout)
    service = subprocess.Popen(
        [sys.executable, "-m", "colorized", "web", "--port", "0", "--queue", str(queue)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert service.stdout is not None
        address = service.stdout.readline().strip()
        load, memory, took = asyncio.run(under_load(address, service.pid, clients, seconds))
    finally:
        service.terminate()
        service.wait()
    one = parts["library"]["seconds_per_photograph"]
    rate = len(load.times) / took
    p95 = float(np.percentile(load.times, 95))
    third = max(1, len(memory) // 3)
    failed = sum(n for outcome, n in load.outcomes.items() if outcome not in ("200", "429"))
    return {
        "clients": clients,
        "seconds": seconds,
        "queue": queue,
        "cores": len(psutil.Process().cpu_affinity()),
        "photographs": [path.name for path in PHOTOGRAPHS],
        "library": parts["library"],
        "service": {
            "photographs_per_second": rate,
            "outcomes": dict(load.outcomes),
            "median_seconds": float(np.median(load.times)),
            "p95_seconds": p95,
            "memory_mb": {"first_third": mean(memory[:third]), "last_third": mean(memory[-third:])},
        },
        "failed": failed,
        "throughput_over_library": rate * one,
        "p95_over_queue_times_one": p95 / (queue * one),
        "memory_last_over_first_third": mean(memory[-third:]) / mean(memory[:third]),
        "batching": parts["batching"],
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--part", choices=["library", "batching"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    seconds = min(given.seconds, MAX_SECONDS)
    if given.part:
        print(json.dumps(library(seconds) if given.part == "library" else batching()))
        return
    result = measure(seconds, min(given.clients, MAX_CLIENTS), given.queue)
    text = json.dumps(result, indent=2)
    given.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
