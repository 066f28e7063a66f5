"""`odm data <split>`: the images of a split, decoded, shrunk and gathered in one file."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from odm.errors import OdmError
from odm.images.prepared import Prepared, write
from odm.images.reading import digest, read_set
from odm.settings import Images, Settings

SPLITS = ("train", "test")


def run(settings: Settings, split: str) -> None:
    """Write results/<suite>/data/<split>.safetensors; `split` is `train` or `test`."""
    if split not in SPLITS:
        raise OdmError(f"odm data: no split '{split}'; there are: {', '.join(SPLITS)}")
    images = settings.images
    if split == "train":
        sets = {each: read_set(each, images) for each in images.train}
    else:
        # Asked here and not when training data are prepared: other test sets must never mean training again.
        trained = {
            digest(image): f"'{name}' of '{each}'" for each in images.train for name, image in read_set(each, images)
        }
        sets = {each: _not_trained(each, images, trained) for each in images.test}
    path = settings.results / "data" / f"{split}.safetensors"
    write(path, sets, images.scales)
    # Read back and compared, so that a failing disk shows here and not in a training run.
    prepared = Prepared(path, check=True)
    pixels = sum(np.prod(prepared.hr(index).shape[:2]) for index in range(len(prepared.images)))
    scales = ", ".join(f"x{scale}" for scale in sorted(set(images.scales)))
    print(f"{split}: {len(prepared.images)} images, {pixels / 1e6:.1f} megapixels, {scales}: {path}")


def _not_trained(name: str, images: Images, trained: dict[str, str]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """The images of a test set; OdmError at one whose pixels are those of a training image."""
    for image_name, image in read_set(name, images):
        if (also := trained.get(digest(image))) is not None:
            raise OdmError(f"images.test: '{image_name}' of '{name}' is also trained on, as {also}; take it out of one")
        yield image_name, image
