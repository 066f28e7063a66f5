"""The page of a suite: what goes into it, and what a browser makes of it."""

import base64
import io
import shutil
from collections.abc import Iterator
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_figures import put_together
from test_tables import settings

from odm.images.imresize import imresize
from odm.images.prepared import Prepared
from odm.networks.build import build
from odm.reporting import gallery, results, tables
from odm.reporting.charts import charts
from odm.reporting.gallery import Scene, Version
from odm.settings.suite import Settings
from odm.steps import report as step

MOST = 5_000_000


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A whole results folder under the working folder; quantized networks enlarge a little darker than bicubic."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(step.inference, "load", lambda made, name, device: name)
    monkeypatch.setattr(step, "reach", lambda network: 8)

    def upscale(network: str, lr: np.ndarray, name: str) -> np.ndarray:
        return np.maximum(imresize(lr, Fraction(2)), 9) - np.uint8(9 if network.startswith("w") else 0)

    monkeypatch.setattr(step.inference, "upscale", upscale)
    made = settings()
    put_together(made)
    return made


def written(made: Settings) -> str:
    step.run(made)
    return (made.results / "report.html").read_text(encoding="utf-8")


def pixels(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB"))


class Parts(HTMLParser):
    """Of a document: what it links to, and the cells of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.cells: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "action")]
        self.inside = tag in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells.append(data)


def test_equal_results_give_equal_bytes_and_nothing_is_asked_for(made: Settings) -> None:
    text = written(made)
    assert text == written(made)
    links = Parts(text).links
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    assert len(text.encode()) < MOST


def test_the_tables_say_what_tables_csv_says(made: Settings) -> None:
    cells = Parts(written(made)).cells
    for line in tables.scores(results.read(made)):
        if line["psnr"] is not None:
            assert f"{line['psnr']:.4f}" in cells
            assert f"{line['psnr']:.2f}" in cells


def test_nothing_finished_still_gives_a_page(made: Settings) -> None:
    for path in [*made.results.glob("*/*/*.json"), *made.results.glob("*/*/*.csv")]:
        path.unlink()
    text = written(made)
    assert "†" in text
    assert 'id="charts"' not in text
    assert 'id="images"' not in text


def test_a_name_cannot_leave_its_place(made: Settings) -> None:
    scene: dict[str, Any] = {"title": "</script><b>", "versions": []}
    text = step.page(results.read(made), [scene])
    assert "</script><b>" not in text
    assert "\\u003c/script>\\u003cb>" in text


def test_charts_hold_the_means_of_the_table(made: Settings) -> None:
    suite = results.read(made)
    drawn = {chart["id"]: chart["spec"] for chart in charts(suite, tables.scores(suite))}
    assert list(drawn) == ["storage_k", "bitops_t", "curves", "mismatch"]
    rows = {(row["method"], row["bits"]): row for row in drawn["bitops_t"]["data"]["values"]}
    assert rows["odm", "W2A2"]["PSNR"] == pytest.approx(32.2333, abs=1e-4)
    assert rows["odm", "W2A2"]["seeds"] == 3
    curve = drawn["curves"]["data"]["values"].splitlines()
    assert curve[0].split(",")[:2] == ["step", "loss"]
    assert sum("odm W2A2" in line for line in curve) == 10, "seeds are pooled"
    assert len(drawn["mismatch"]["data"]["values"]) == 2 * 9


def test_images_are_the_first_of_each_set_and_those_on_which_methods_differ(made: Settings) -> None:
    suite = results.read(made)
    test = Prepared(made.results / "data" / "test.safetensors")
    # Between w2a2_plain, w2a2_odm_1 and w4a4_odm: 0.8, 0.9 and 0.7 dB.
    assert [test.images[place][1] for place in gallery.chosen(suite, "tiny", test)] == ["boat", "cat"]


def test_cuts_are_those_of_the_whole_output(made: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(made.networks["tiny"]).eval()
    folder = Path.cwd()
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(step.inference, "load", lambda made, name, device: network)
    monkeypatch.setattr(gallery, "SIDES", (32,))
    found: list[Scene] = []
    monkeypatch.setattr(step.gallery, "encoded", lambda scenes: found.extend(scenes) or [])
    step.run(made)
    assert [scene.name for scene in found] == ["boat", "cat"]
    for scene in found:
        labels = [version.label for version in scene.versions]
        assert labels == ["high resolution", "bicubic", "float", "odm W4A4", "plain W2A2", "odm W2A2"]
        # Float is cut from the whole output; of the others a part alone has gone through the same network here.
        for version in scene.versions[3:]:
            assert version.pixels.shape == (32, 32, 3)
            np.testing.assert_array_equal(version.pixels, scene.versions[2].pixels)


def test_no_bit_of_an_output_is_lost() -> None:
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(5)]
    scene = Scene("tiny", "photos", "boat", [Version(str(each), 30.0, image) for each, image in enumerate(images)])
    versions = gallery.encoded([scene])[0]["versions"]
    assert [version["of"] for version in versions] == [None, None, None, 2, 2]
    for version, image in zip(versions, images, strict=True):
        found = pixels(version["src"])
        if version["of"] is not None:
            found = found + pixels(versions[version["of"]]["src"]) - np.uint8(128)
        np.testing.assert_array_equal(found, image)


def test_many_images_become_smaller_then_fewer() -> None:
    random = np.random.default_rng(1)
    noise = [Version(str(each), None, random.integers(0, 256, (192, 192, 3), dtype=np.uint8)) for each in range(3)]
    scenes = [Scene("tiny", "photos", str(each), noise) for each in range(2)]
    sizes = []
    for most in (2_000_000, 500_000, 200_000):
        found = gallery.encoded(scenes, most)
        assert sum(len(version["src"]) for scene in found for version in scene["versions"]) <= most
        sizes.append((len(found), pixels(found[0]["versions"][0]["src"]).shape[0]))
    assert sizes == [(2, 192), (2, 128), (1, 128)]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("no Chromium here, or no chromedriver: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    switches = "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    for switch in [*switches.split(), "disable-component-update", "disable-sync", f"user-data-dir={tmp_path}/profile"]:
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()


@pytest.mark.slow
def test_a_browser_shows_it(made: Settings, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    written(made)
    phone = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get((made.results / "report.html").absolute().as_uri())
    wait = WebDriverWait(browser, 60)

    for chart in browser.find_elements(By.CLASS_NAME, "chart"):
        browser.execute_script("arguments[0].scrollIntoView()", chart)
        wait.until(lambda _, chart=chart: chart.find_elements(By.TAG_NAME, "svg"))
    wait.until(lambda _: browser.find_element(By.ID, "apart").text)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400

    # A row sorts, by keyboard.
    button = browser.find_elements(By.CSS_SELECTOR, "thead button")[2]
    button.send_keys(Keys.ENTER)
    rows = browser.find_element(By.CSS_SELECTOR, "#tables table").find_elements(By.CSS_SELECTOR, "tbody tr")
    cells = [row.find_elements(By.XPATH, "*")[2].text for row in rows]
    column = [float(text.split()[0]) for text in cells if text[:1].isdigit()]
    assert len(column) > 2
    assert column == sorted(column)

    # Outputs are put together again from their difference: 9 less than float.
    assert browser.execute_script("return document.getElementById('right').selectedOptions[0].text").startswith("odm")
    assert "9.00 of 255" in browser.find_element(By.ID, "apart").text

    # The slider moves.
    picture = "return document.getElementById('picture').toDataURL()"
    before = browser.execute_script(picture)
    browser.find_element(By.ID, "division").send_keys(Keys.ARROW_RIGHT * 5)
    assert browser.execute_script(picture) != before
    browser.find_element(By.ID, "stage").send_keys(Keys.ARROW_RIGHT)
    assert browser.find_element(By.ID, "lens").is_displayed()

    assert not browser.get_log("browser")
    asked = [entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]]
    assert not [message for message in asked if '"url":"http' in message]
