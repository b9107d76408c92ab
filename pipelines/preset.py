"""`python -m pipelines.preset NAME`: set the values of a preset in params.yaml.

Comments and values that the preset does not name stay. `git diff params.yaml` shows what changed,
`git checkout params.yaml` takes it back.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from colorized import atomic
from colorized.params import ParamsError, load_params
from pipelines import stage

PRESETS = Path(__file__).parent / "presets"


def apply(name: str, path: Path) -> list[str]:
    """Write the preset's values to the file at `path`; the changes, as `key: old → new`.

    Raises ParamsError when the file or the result is invalid; it is then unchanged.
    """
    load_params(path)
    yaml = YAML()  # keeps comments and order
    yaml.preserve_quotes = True
    yaml.width = 200
    values: Any = yaml.load(path.read_text(encoding="utf-8"))
    preset: Any = yaml.load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))
    changes = []
    for section, keys in preset.items():
        for key, value in keys.items():
            old = values[section].get(key)
            if old != value:
                changes.append(f"{section}.{key}: {old} → {value}")
                values[section][key] = value
    with atomic.replacing(path) as partial:
        yaml.dump(values, partial)
        load_params(partial)
    return changes


def main() -> int:
    """Apply the named preset to the project's params.yaml."""
    parser = argparse.ArgumentParser(prog="pipelines.preset", description="Set a preset's values.")
    parser.add_argument("name", choices=sorted(path.stem for path in PRESETS.glob("*.yaml")))
    try:
        changes = apply(parser.parse_args().name, stage.ROOT / "params.yaml")
    except (OSError, ParamsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(changes) or "nothing to change")
    return 0


if __name__ == "__main__":
    sys.exit(main())
