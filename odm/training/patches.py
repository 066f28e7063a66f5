"""Training batches: small squares cut from prepared images."""

import numpy as np
import torch

from odm.errors import OdmError
from odm.images.prepared import Prepared


class Patches:
    """Batches of matching patches; which ones depends on the seed and the number of the step alone.

    Each image is as likely as any other, as is each place in it, and each of the eight flips and quarter turns.
    """

    def __init__(self, prepared: Prepared, scale: int, batch: int, patch: int, seed: int) -> None:
        """`patch` is the side of a low-resolution patch in pixels."""
        self.scale, self.batch, self.patch, self.seed = scale, batch, patch, seed
        self._pairs = [prepared.pair(index, scale) for index in range(len(prepared.images))]
        for (set_name, name), (lr, _) in zip(prepared.images, self._pairs, strict=True):
            if min(lr.shape[:2]) < patch:
                size = f"{lr.shape[1]}x{lr.shape[0]}"
                raise OdmError(
                    f"{prepared.path}: {set_name}/{name} is {size} at 1/{scale}, smaller than a patch ({patch}); "
                    f"take a smaller patch or leave the image out"
                )
        self._rooms = np.array([[side - patch + 1 for side in lr.shape[:2]] for lr, _ in self._pairs])

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch of a step: LR (batch, 3, patch, patch) and HR, `scale` times larger; float32 in 0-255."""
        generator = np.random.default_rng([self.seed, step])
        chosen = generator.integers(len(self._pairs), size=self.batch)
        corners = generator.integers(self._rooms[chosen])
        turns = generator.integers(8, size=self.batch)
        small, large = self.patch, self.patch * self.scale
        lr_batch = np.empty((self.batch, 3, small, small), np.float32)
        hr_batch = np.empty((self.batch, 3, large, large), np.float32)
        for row, (index, (top, left), turn) in enumerate(zip(chosen, corners, turns, strict=True)):
            lr, hr = self._pairs[index]
            lr_batch[row] = _turned(lr[top : top + small, left : left + small], turn)
            top, left = top * self.scale, left * self.scale
            hr_batch[row] = _turned(hr[top : top + large, left : left + large], turn)
        return torch.from_numpy(lr_batch), torch.from_numpy(hr_batch)


def _turned(patch: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight symmetries of a square patch (s, s, 3) or (s, s), as a view (3 or 1, s, s)."""
    if patch.ndim == 2:
        patch = patch[:, :, None]
    planes = patch.transpose(2, 0, 1)
    if turn & 1:
        planes = planes.transpose(0, 2, 1)
    if turn & 2:
        planes = planes[:, ::-1]
    if turn & 4:
        planes = planes[:, :, ::-1]
    return planes
