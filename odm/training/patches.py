"""Training batches: small squares cut from prepared images."""

import warnings

import numpy as np
import torch
from torch import Tensor

from odm.errors import OdmError
from odm.images.prepared import Pixels, Prepared
from odm.settings.suite import Settings
from odm.settings.training import Training

CPU = torch.device("cpu")


class Patches:
    """Batches of matching patches; which ones depends on the seed and the number of the step alone.

    Each image is as likely as any other, as is each place in it, and each of the eight flips and quarter turns.
    """

    def __init__(
        self, prepared: Prepared, scale: int, batch: int, patch: int, seed: int, device: torch.device = CPU
    ) -> None:
        """Batches come on `device`, as do the images they are cut from if they fit in half of its free memory.
        `patch` is the side of a low-resolution patch in pixels."""
        self.digest = prepared.digest
        self.scale, self.batch, self.patch, self.seed, self.device = scale, batch, patch, seed, device
        pairs = [prepared.pair(index, scale) for index in range(len(prepared.images))]
        for (set_name, name), (lr, _) in zip(prepared.images, pairs, strict=True):
            if min(lr.shape[:2]) < patch:
                size = f"{lr.shape[1]}x{lr.shape[0]}"
                raise OdmError(
                    f"{prepared.path}: {set_name}/{name} is {size} at 1/{scale}, smaller than a patch ({patch}); "
                    f"take a smaller patch or leave the image out"
                )
        self._rooms = np.array([[side - patch + 1 for side in lr.shape[:2]] for lr, _ in pairs])
        home = CPU
        if device.type == "cuda":
            total = sum(image.nbytes for pair in pairs for image in pair)
            home = device if total < torch.cuda.mem_get_info(device)[0] / 2 else CPU
        self._pairs = [(_planes(lr, home), _planes(hr, home)) for lr, hr in pairs]

    @classmethod
    def of(cls, settings: Settings, network: str, training: Training, seed: int, device: torch.device) -> "Patches":
        """Of the suite's training images, for one of its networks."""
        prepared = Prepared(settings.results / "data" / "train.safetensors")
        scale = settings.network_of(network).scale
        prepared.sample(scale, seed)  # whole they are compared when they are written and by `odm verify`
        return cls(prepared, scale, training.batch, training.patch, seed, device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Batch of a step: LR (batch, 3, patch, patch) and HR, `scale` times larger; float32 in 0-255, channels last:
        the layout that convolutions and quantizers are fastest in."""
        generator = np.random.default_rng([self.seed, step])
        chosen = generator.integers(len(self._pairs), size=self.batch)
        corners = generator.integers(self._rooms[chosen])
        turns = generator.integers(8, size=self.batch)
        small, large = self.patch, self.patch * self.scale
        lr_batch, hr_batch = self._empty(small), self._empty(large)
        for row, (index, (top, left), turn) in enumerate(zip(chosen, corners, turns, strict=True)):
            lr, hr = self._pairs[index]
            lr_batch[row] = _turned(lr[:, top : top + small, left : left + small], turn)
            top, left = top * self.scale, left * self.scale
            hr_batch[row] = _turned(hr[:, top : top + large, left : left + large], turn)
        return lr_batch, hr_batch

    def _empty(self, side: int) -> Tensor:
        shape = (self.batch, 3, side, side)
        return torch.empty(shape, device=self.device).contiguous(memory_format=torch.channels_last)


def _planes(image: Pixels, home: torch.device) -> Tensor:
    """An image (H, W, 3) or (H, W) as a view (3 or 1, H, W), or a copy if it goes to a GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is read-only: nothing here writes to it
        planes = torch.from_numpy(image if image.ndim == 3 else image[:, :, None])
    return planes.permute(2, 0, 1).to(home)


def _turned(patch: Tensor, turn: int) -> Tensor:
    """One of the eight symmetries of a square patch (3 or 1, s, s)."""
    if turn & 1:
        patch = patch.transpose(1, 2)
    flipped = [axis for axis, bit in ((1, 2), (2, 4)) if turn & bit]
    return patch.flip(flipped) if flipped else patch
