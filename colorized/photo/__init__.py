"""Reading and writing of photographs: lightness, and the metadata of a colored copy.

A file of any kind (gray, sepia, palette, CMYK, 16 bits, several pages) is reduced to L*. Copies are
sRGB, in 16 bits where the original had them and the format does.

    with open_scan(path) as scan:                       # a file of one or more photographs
        for page in scan.pages:
            L = page.small(256, 384)                    # for the network, averaged over strips
            ...
        write_scan(colored, target)                     # strip by strip: L* exact, chroma given

`read_photo` and `write_photo` do the same for one photograph that is wholly in memory.
"""

import importlib
from typing import TYPE_CHECKING, Any

from colorized.photo.names import (
    MAX_PIXELS,
    PhotoError,
    TooManyPixels,
    fitting,
    is_picture_name,
    output_format,
    output_name,
)

if TYPE_CHECKING:
    from colorized.photo.colorfulness import is_in_color
    from colorized.photo.page import Metadata, Page, use_threads
    from colorized.photo.reading import Scan, open_scan, read_photo, read_rgb, read_xmp
    from colorized.photo.variants import Place, layer, marked
    from colorized.photo.writing import (
        Colored,
        Rows,
        encode_photo,
        left_out,
        write_photo,
        write_scan,
    )


# On first use: a process that only plans which files to color needs neither codecs nor torch.
_FROM = {
    "colorfulness": ("is_in_color",),
    "page": ("Metadata", "Page", "use_threads"),
    "reading": ("Scan", "open_scan", "read_photo", "read_rgb", "read_xmp"),
    "variants": ("Place", "layer", "marked"),
    "writing": ("Colored", "Rows", "encode_photo", "left_out", "write_photo", "write_scan"),
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        for module, names in _FROM.items():
            if name in names:
                return getattr(importlib.import_module(f"colorized.photo.{module}"), name)
        raise AttributeError(f"module 'colorized.photo' has no attribute {name!r}")
