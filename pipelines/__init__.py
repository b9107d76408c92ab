"""The stages of dvc.yaml, one thin file each: read params, load, call the library, save."""

import colorized as colorized  # before torch: see there
