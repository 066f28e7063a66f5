import time
from pathlib import Path

import numpy as np
import pytest
import torch

from odm.errors import OdmError
from odm.images.prepare import write
from odm.images.prepared import Prepared
from odm.training.patches import Patches


def noise(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    images = [("large", noise(200, 300, 3)), ("small", noise(50, 61, 3, seed=2)), ("grey", noise(70, 60, seed=3))]
    write(tmp_path / "train.safetensors", {"set": images}, [2, 4])
    return Prepared(tmp_path / "train.safetensors")


def symmetries(patch: np.ndarray) -> list[np.ndarray]:
    turned = [np.rot90(patch, turns) for turns in range(4)]
    return turned + [each[:, ::-1] for each in turned]


def test_shapes_and_range(prepared: Prepared) -> None:
    lr, hr = Patches(prepared, scale=2, batch=8, patch=12, seed=1)(0)
    assert lr.shape == (8, 3, 12, 12)
    assert hr.shape == (8, 3, 24, 24)
    for batch in (lr, hr):
        assert batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert batch.min() >= 0
        assert 200 < batch.max() <= 255


@pytest.mark.parametrize("scale", [2, 4])
def test_every_pair_is_a_place_in_an_image_and_all_eight_symmetries_occur(prepared: Prepared, scale: int) -> None:
    patches = Patches(prepared, scale, batch=16, patch=8, seed=3)
    seen = {}
    for index in range(3):
        lr_image, hr_image = prepared.pair(index, scale)
        for top in range(lr_image.shape[0] - 7):
            for left in range(lr_image.shape[1] - 7):
                lr = lr_image[top : top + 8, left : left + 8]
                hr = hr_image[top * scale : (top + 8) * scale, left * scale : (left + 8) * scale]
                seen[lr.tobytes()] = index, lr, hr
    images, turns = set(), set()
    for step in range(20):
        for lr, hr in zip(*patches(step), strict=True):
            lr_patch, hr_patch = (each.numpy().astype(np.uint8).transpose(1, 2, 0) for each in (lr, hr))
            for turn, straight in enumerate(symmetries(lr_patch)):
                grey = straight[..., :1]
                found = seen.get(straight.tobytes()) or (seen.get(grey.tobytes()) if (straight == grey).all() else None)
                if found is None:
                    continue
                index, _, expected = found
                expected = expected.reshape(*expected.shape[:2], -1)
                assert (symmetries(hr_patch)[turn] == expected).all()
                images.add(index)
                turns.add(turn)
                break
            else:
                pytest.fail("a patch that is in no image")
    assert images == {0, 1, 2}
    assert turns == set(range(8))


def test_a_batch_depends_on_seed_and_step_alone(prepared: Prepared) -> None:
    first, again = (Patches(prepared, 2, batch=4, patch=8, seed=1) for _ in range(2))
    first(0), first(1)
    assert all(torch.equal(*each) for each in zip(first(7), again(7), strict=True))
    assert not torch.equal(first(7)[0], first(8)[0])
    assert not torch.equal(first(7)[0], Patches(prepared, 2, batch=4, patch=8, seed=2)(7)[0])


def test_images_are_equally_likely_and_their_edges_reached(prepared: Prepared) -> None:
    # A patch as high as the small image at 1/2: its only free direction is the other one.
    patches = Patches(prepared, 2, batch=64, patch=25, seed=1)
    small_lr, _ = prepared.pair(1, 2)
    corners = {small_lr[:, left : left + 25].sum(): left for left in range(small_lr.shape[1] - 24)}
    totals = [int(each.sum()) for step in range(10) for each in patches(step)[0]]
    hits = [corners[total] for total in totals if total in corners]
    assert len(hits) == pytest.approx(len(totals) / 3, rel=0.2)
    assert set(hits) == set(range(6))


def test_a_patch_larger_than_an_image(prepared: Prepared) -> None:
    with pytest.raises(OdmError, match=r"set/small is 30x25 at 1/2, smaller than a patch \(26\); take a smaller patch"):
        Patches(prepared, 2, batch=4, patch=26, seed=1)


def test_fast_enough_not_to_be_noticed(prepared: Prepared) -> None:
    patches = Patches(prepared, 2, batch=8, patch=24, seed=1)
    patches(0)
    times = []
    for step in range(50):
        start = time.thread_time()
        patches(step)
        times.append(time.thread_time() - start)
    assert min(times) < 0.002
