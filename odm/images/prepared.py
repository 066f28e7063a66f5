"""One file a split that holds every image at every scale, read without copying.

Safetensors: `hr/<set>/<name>` as decoded and `lr_x<scale>/<set>/<name>` shrunk by MATLAB's bicubic, uint8,
(H, W, 3) or for grey images (H, W). The metadata holds the SHA-256 of each, and the header is sealed.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from odm.errors import OdmError
from odm.files import unreadable
from odm.images.digest import digest
from odm.sealed import KEY, METADATA, DamagedError, parsed, read_header

Pixels = NDArray[np.uint8]
SAMPLE = 1 << 26
"""Bytes of images that are compared where not all are: a tenth of a second's work."""


def crop(hr: Pixels, scale: int) -> Pixels:
    """The upper left part of an image whose sides are multiples of `scale`."""
    height, width = hr.shape[:2]
    return hr[: height - height % scale, : width - width % scale]


class Prepared:
    """The images of a prepared file as views of the file: nothing is read before it is used, nothing copied.

    `images` lists (set, name) in the order written. OdmError if the file is missing, cut short or no such file, or says
    anything else of its images than was written; with `check` also if any pixel differs. Pixels that are not compared
    here may be with `pair` or `sample`.
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
            raise unreadable(path, error) from None
        except (DamagedError, ValueError, KeyError, TypeError, AttributeError):
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
            header = read_header(file, size)
            start = file.tell()
        self._digests = parsed(header.pop(METADATA)[KEY])
        # A plain array over the map: slicing numpy's own memmap class costs ten times as much.
        body = np.asarray(np.memmap(self.path, np.uint8, "r"))[start:]
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

    def pair(self, index: int, scale: int, check: bool = False) -> tuple[Pixels, Pixels]:
        """Low- and high-resolution image, (h, w, 3) and (h * scale, w * scale, 3), grey ones (h, w): read-only.

        OdmError if they are not prepared, and with `check` if a pixel differs from what was written.
        """
        key = "/".join(self.images[index])
        lr = self._tensors.get(f"lr_x{scale}/{key}")
        if lr is None:
            raise OdmError(f"{self.path}: not prepared for x{scale}; add {scale} to images.scales and run `odm data`")
        if check:
            self._check(f"lr_x{scale}/{key}")
            self._check(f"hr/{key}")
        return lr, crop(self.hr(index), scale)

    def sample(self, scale: int, seed: int, most: int = SAMPLE) -> None:
        """Compare pairs with what was written, in an order drawn by the seed, until so many bytes have been read."""
        for index in np.random.default_rng(seed).permutation(len(self.images)):
            most -= sum(each.nbytes for each in self.pair(index, scale, check=True))
            if most < 0:
                return

    def check(self) -> None:
        """Compare every pixel with what was written: reads the whole file, half a second or so a gigabyte."""
        for key in self._tensors:
            self._check(key)

    def _check(self, key: str) -> None:
        if digest(self._tensors[key]) != self._digests[key]:
            raise self._damaged()

    def _damaged(self) -> OdmError:
        return OdmError(f"{self.path}: damaged or cut short; remove it and run `odm data {self.path.stem}`")
