"""Names of number formats → what torch computes in."""

import os
import subprocess
import sys


def test_a_torch_that_is_kept_from_new_instructions_computes_in_float32() -> None:
    code = (
        "import torch; from colorized.devices import use_bfloat16;"
        "print(use_bfloat16('auto', torch.device('cpu')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "avx2"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "False\n"
