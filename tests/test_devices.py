"""Names of number formats → what torch computes in."""

from commands import python


def test_a_torch_that_is_kept_from_new_instructions_computes_in_float32() -> None:
    code = (
        "import torch; from colorized.devices import use_bfloat16;"
        "print(use_bfloat16('auto', torch.device('cpu')))"
    )
    assert python("-c", code, ATEN_CPU_CAPABILITY="avx2").stdout == "False\n"
