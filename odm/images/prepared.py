"""One file a split that holds every image at every scale, read without copying.

Safetensors: `hr/<set>/<name>` as decoded and `lr_x<scale>/<set>/<name>` shrunk by MATLAB's bicubic, uint8,
(H, W, 3) or for grey images (H, W). The metadata holds the SHA-256 of each.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from odm.errors import OdmError
from odm.images.digest import digest

Pixels = NDArray[np.uint8]


def crop(hr: Pixels, scale: int) -> Pixels:
    """The upper left part of an image whose sides are multiples of `scale`."""
    height, width = hr.shape[:2]
    return hr[: height - height % scale, : width - width % scale]


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

    @property
    def digest(self) -> str:
        """Of all images, by the digest that was noted of each."""
        return hashlib.sha256(json.dumps(self._digests).encode()).hexdigest()

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
