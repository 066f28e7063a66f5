"""`odm upscale <image>`: enlarge a photograph with a trained network."""

from pathlib import Path
from typing import Any

from PIL import Image

from odm import inference
from odm.errors import OdmError
from odm.files import whole
from odm.images.decode import read_image
from odm.names import shown
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


def run(settings: Settings, image: str, name: str, output: str) -> None:
    """Without a name the last run of the settings is used, without an output a PNG beside the image is written."""
    source = Path(image)
    name = name or list(settings.runs)[-1]
    scale = settings.network_of(settings.runs[name].network if name in settings.runs else name).scale
    target = Path(output) if output else source.with_name(f"{source.stem}_x{scale}_{name}.png")
    options = FORMATS.get(target.suffix.lower())
    if options is None:
        raise OdmError(f"{target}: no image format has this suffix; there are: {', '.join(FORMATS)}")
    if target.exists() and source.exists() and target.samefile(source):
        raise OdmError(f"{target}: is the image itself, which would be lost; name another file")
    pixels = read_image(source)
    network = inference.load(settings, name, device_of(settings))
    enlarged = Image.fromarray(inference.upscale(network, pixels, name))
    with whole(target) as beside:
        try:
            enlarged.save(beside, **options)
        except ValueError as error:  # larger than the format allows, which PNG is last to say
            raise OdmError(f"{target}: cannot be written as {options['format']}: {error}; name a .png") from None
    print(f"{shown(target)}: {name}, x{network.scale}")
