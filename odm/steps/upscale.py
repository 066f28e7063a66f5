"""`odm upscale <image>`: enlarge a photograph with a trained network."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from odm import inference, model
from odm.errors import OdmError, nearest
from odm.files import whole
from odm.images.decode import read_image
from odm.names import shown
from odm.networks.backbone import Backbone
from odm.networks.device import device_of
from odm.settings.suite import Settings

FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".tif": {"format": "TIFF"},
    ".tiff": {"format": "TIFF"},
    ".bmp": {"format": "BMP"},
    ".webp": {"format": "WEBP", "lossless": True},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}
"""What a suffix stands for: all as it is computed, but for JPEG."""


def run(settings: Settings | None, image: str, name: str, output: str) -> None:
    """`name` is a model file, a shipped network, or a name of the settings, which are needed for nothing else. Without
    one the shipped default is used, without an output a PNG beside the image is written."""
    source = Path(image)
    name = name or model.DEFAULT
    file = model.shipped().get(name) or (Path(name) if name.endswith(".safetensors") else None)
    if file is None and settings is None:
        raise OdmError(f"'{name}' is no shipped network{nearest(name, model.shipped())}, and there is no suite here")
    if file is not None:
        scale, name = model.about(file).network.scale, file.stem
    elif settings is not None:
        scale = settings.network_of(settings.runs[name].network if name in settings.runs else name).scale
    target = Path(output) if output else source.with_name(f"{source.stem}_x{scale}_{name}.png")
    options = FORMATS.get(target.suffix.lower())
    if options is None:
        raise OdmError(f"{target}: no image format has this suffix; there are: {', '.join(FORMATS)}")
    if target.exists() and source.exists() and target.samefile(source):
        raise OdmError(f"{target}: is the image itself, which would be lost; name another file")
    pixels = read_image(source)
    network = _network(settings, name, file)
    enlarged = Image.fromarray(inference.upscale(network, pixels, name))
    with whole(target) as beside:
        try:
            enlarged.save(beside, **options)
        except ValueError as error:  # larger than the format allows, which PNG is last to say
            raise OdmError(f"{target}: cannot be written as {options['format']}: {error}; name a .png") from None
    print(f"{shown(target)}: {name}, x{network.scale}")


def _network(settings: Settings | None, name: str, file: Path | None) -> Backbone:
    if file is None:
        assert settings is not None
        return inference.load(settings, name, device_of(settings))
    return model.load(file, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
