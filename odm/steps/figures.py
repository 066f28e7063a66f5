"""Draw every figure of the suite."""

import numpy as np
from numpy.typing import NDArray

from odm import inference
from odm.images.prepared import Prepared
from odm.networks.device import device_of
from odm.reporting import agreement, crops, dial, differences, mismatch, results, tradeoff
from odm.reporting.style import save, styled
from odm.settings.suite import Settings


def run(settings: Settings) -> None:
    suite = results.read(settings)
    test = Prepared(settings.results / "data" / "test.safetensors")
    device = device_of(settings)
    folder = settings.results / "figures"

    def upscale(name: str, lr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return inference.upscale(inference.load(settings, name, device), lr, name)

    with styled():
        save(tradeoff.draw(suite), folder / "tradeoff.png")
        save(differences.draw(suite), folder / "differences.png")
        save(agreement.draw(suite), folder / "agreement.png")
        save(mismatch.draw(suite), folder / "mismatch.png")
        save(dial.draw(suite), folder / "dial.png")
        save(crops.draw(suite, test, upscale), folder / "crops.png")
    print(f"{folder}/tradeoff.png, differences.png, agreement.png, mismatch.png, dial.png, crops.png")
