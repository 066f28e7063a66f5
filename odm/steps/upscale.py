"""`odm upscale <image>`: enlarge a photograph with a trained network."""

from pathlib import Path

from PIL import Image

from odm import inference
from odm.files import whole
from odm.images.reading import read_image
from odm.networks.device import device_of
from odm.settings.suite import Settings


def run(settings: Settings, image: str, name: str, output: str) -> None:
    """Write a PNG; without a name the last run of the settings is used, without an output one beside the image."""
    source = Path(image)
    name = name or list(settings.runs)[-1]
    pixels = read_image(source)
    network = inference.load(settings, name, device_of(settings))
    target = Path(output) if output else source.with_name(f"{source.stem}_x{network.scale}_{name}.png")
    enlarged = Image.fromarray(inference.upscale(network, pixels, name))
    with whole(target) as beside:
        enlarged.save(beside, format="PNG")
    print(f"{target}: {name}, x{network.scale}")
