"""Writes the file that `odm.images.prepared` reads: every image of a split at every scale."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from odm.files import whole
from odm.images.digest import digest
from odm.images.imresize import imresize
from odm.images.prepared import Pixels, crop
from odm.sealed import KEY, METADATA, header_bytes


def write(path: Path, sets: Mapping[str, Iterable[tuple[str, Pixels]]], scales: Iterable[int]) -> None:
    """Write the images of `sets` (name of a set: names and pixels), in the order given; equal content, equal bytes.

    Images are taken one at a time, so iterators of sets larger than memory will do.
    """
    scales = sorted(set(scales))
    tensors: dict[str, Any] = {}
    digests: dict[str, str] = {}
    end = 0
    with whole(path) as beside, tempfile.TemporaryFile(dir=beside.parent) as body:
        # The header comes first but needs all sizes: the pixels wait in an unnamed file.
        for set_name, images in sets.items():
            for name, hr in images:
                pixels = {f"hr/{set_name}/{name}": hr}
                for scale in scales:
                    pixels[f"lr_x{scale}/{set_name}/{name}"] = imresize(crop(hr, scale), Fraction(1, scale))
                for key, each in pixels.items():
                    tensors[key] = {"dtype": "U8", "shape": each.shape, "data_offsets": [end, end + each.size]}
                    digests[key] = digest(each)
                    end += each.size
                    body.write(np.ascontiguousarray(each).data)
        body.seek(0)
        with beside.open("wb") as file:
            file.write(header_bytes({METADATA: {KEY: json.dumps(digests)}, **tensors}))
            shutil.copyfileobj(body, file, 1 << 20)
