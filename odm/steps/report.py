"""Put the suite's tables, charts and images into one page."""

from odm import inference
from odm.files import write_text
from odm.images.prepared import Prepared
from odm.networks.device import device_of
from odm.networks.reach import reach
from odm.reporting import gallery, results
from odm.reporting.crops import Pixels
from odm.reporting.page import page
from odm.settings.suite import Settings


def run(settings: Settings) -> None:
    suite = results.read(settings)
    test = Prepared(settings.results / "data" / "test.safetensors")
    device = device_of(settings)

    def load(name: str) -> gallery.Enlarge:
        network = inference.load(settings, name, device)
        around = reach(network)

        def enlarge(lr: Pixels, box: gallery.Box) -> Pixels:
            top, left, height, width = box
            above, before = (0, 0) if around is None else (max(0, top - around), max(0, left - around))
            part = lr if around is None else lr[above : top + height + around, before : left + width + around]
            output = inference.upscale(network, part, name)
            scale = output.shape[0] // part.shape[0]
            top, left = (top - above) * scale, (left - before) * scale
            return output[top : top + height * scale, left : left + width * scale]

        return enlarge

    path = settings.results / "report.html"
    write_text(path, page(suite, gallery.encoded(gallery.scenes(suite, test, load))))
    print(path)
