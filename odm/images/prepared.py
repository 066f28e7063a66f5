"""One file a split that holds every image at every scale, read without copying.

Safetensors: `hr/<set>/<name>` as decoded and `lr_x<scale>/<set>/<name>` shrunk by MATLAB's bicubic, uint8,
(H, W, 3) or for grey images (H, W). The metadata holds the SHA-256 of each.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odm.errors import OdmError
from odm.files import whole
from odm.images.imresize import imresize
from odm.images.reading import digest

Pixels = NDArray[np.uint8]


def crop(hr: Pixels, scale: int) -> Pixels:
    """The upper left part of an image whose sides are multiples of `scale`."""
    height, width = hr.shape[:2]
    return hr[: height - height % scale, : width - width % scale]


def write(path: Path, sets: Mapping[str, Iterable[tuple[str, Pixels]]], scales: Iterable[int]) -> None:
    """Write the images of `sets` (name of a set: names and pixels), in the order given; equal content, equal bytes.

    Images are taken one at a time, so iterators of sets larger than memory will do.
    """
    scales = sorted(set(scales))
    tensors: dict[str, Any] = {}
    digests: dict[str, str] = {}
    end = 0
    with whole(path) as beside, tempfile.TemporaryFile(dir=path.parent) as body:
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
        header = json.dumps({"__metadata__": {"sha256": json.dumps(digests)}, **tensors}).encode()
        header += b" " * (-len(header) % 8)
        body.seek(0)
        with beside.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            shutil.copyfileobj(body, file, 1 << 20)


class Prepared:
    """The images of a prepared file as views of the file: nothing is read before it is used, nothing copied.

    `images` lists (set, name) in the order written. OdmError if the file is missing, cut short or no such file, and,
    with `check`, if any pixel differs from what was written.
    """

    def __init__(self, path: Path, check: bool = False) -> None:
        self.path = path
        self._tensors: dict[str, Pixels] = {}
        self._digests: dict[str, str] = {}
        try:
            self._map()
        except FileNotFoundError:
            raise OdmError(f"{path}: no such file; run `odm data {path.stem}`") from None
        except OSError as error:
            raise OdmError(f"{path}: cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._damaged() from None
        keys = [key.split("/", 2) for key in self._tensors]
        self.images: list[tuple[str, str]] = [(key[1], key[2]) for key in keys if key[0] == "hr"]
        if not self.images:
            raise self._damaged()
        if check:
            self.check()

    def _map(self) -> None:
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size - 8:
                raise ValueError
            header = json.loads(file.read(length))
        self._digests = json.loads(header.pop("__metadata__")["sha256"])
        # A plain array over the map: slicing numpy's own memmap class costs ten times as much.
        body = np.asarray(np.memmap(self.path, np.uint8, "r"))[8 + length :]
        end = 0
        for key, tensor in header.items():
            first, last = tensor["data_offsets"]
            if first != end or tensor["dtype"] != "U8":
                raise ValueError
            self._tensors[key] = body[first:last].reshape(tensor["shape"])
            end = last
        if end != body.size or self._digests.keys() != self._tensors.keys():
            raise ValueError

    def hr(self, index: int) -> Pixels:
        """High-resolution image, (H, W, 3) or for a grey one (H, W), not cropped: read-only."""
        return self._tensors["hr/" + "/".join(self.images[index])]

    def pair(self, index: int, scale: int) -> tuple[Pixels, Pixels]:
        """Low- and high-resolution image, (h, w, 3) and (h * scale, w * scale, 3), grey ones (h, w): read-only."""
        lr = self._tensors.get(f"lr_x{scale}/" + "/".join(self.images[index]))
        if lr is None:
            raise OdmError(f"{self.path}: not prepared for x{scale}; add {scale} to images.scales and run `odm data`")
        return lr, crop(self.hr(index), scale)

    def check(self) -> None:
        """Compare every pixel with what was written: reads the whole file, half a second or so a gigabyte."""
        for key, tensor in self._tensors.items():
            if digest(tensor) != self._digests[key]:
                raise self._damaged()

    def _damaged(self) -> OdmError:
        return OdmError(f"{self.path}: damaged or cut short; remove it and run `odm data {self.path.stem}`")
