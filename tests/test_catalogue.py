import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from odm.errors import OdmError
from odm.images import reading
from odm.images.alike import identity
from odm.images.catalogue import CATALOGUE, Benchmark, Packaged
from odm.images.decode import read_image
from odm.images.digest import digest
from odm.images.folders import ROOT_VARIABLE, images_in
from odm.images.reading import read_set, set_digest, signature
from odm.settings.images import Images


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the project's downloads and from whatever the environment names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)


ROOT = Path(__file__).parents[1]


def settings(**changes: object) -> Images:
    return Images.model_validate({"train": ["skimage_train"], "test": ["skimage_test"], "scales": [2], **changes})


def photo(path: Path, size: tuple[int, int] = (20, 18), mode: str = "RGB", seed: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8), mode).save(path)
    return path


def mine(folder: Path, **changes: object) -> list[tuple[str, np.ndarray]]:
    return list(read_set("mine", settings(folders={"mine": str(folder)}, **changes)))


def one_line(error: pytest.ExceptionInfo[OdmError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_catalogue_needs_only_the_standard_library() -> None:
    code = "import sys, odm.images.catalogue; print(sorted({'numpy', 'PIL', 'torch', 'skimage'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert answer.stdout.strip() == "[]"


def test_packaged_sets_are_disjoint_colour_photographs_with_licences() -> None:
    seen: set[str] = set()
    for name in ("skimage_train", "skimage_test"):
        entry = CATALOGUE[name]
        assert isinstance(entry, Packaged)
        assert all(image.licence for image in entry.images)
        images = dict(read_set(name, settings()))
        assert list(images) == [image.file.split(".")[0] for image in entry.images]
        for image in images.values():
            assert image.ndim == 3
            assert image.shape[2] == 3
            assert (image[..., 0] != image[..., 1]).mean() > 0.1
        digests = {digest(image) for image in images.values()}
        assert len(digests) == len(images)
        assert not digests & seen
        seen |= digests


def test_other_pixels_in_the_package_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "read_image", lambda file: read_image(file)[::-1])
    with pytest.raises(OdmError) as error:
        list(read_set("skimage_test", settings()))
    one_line(error, "astronaut.png", "not the pixels", "scikit-image")


def test_own_folder_in_natural_order(tmp_path: Path) -> None:
    for name in ("b10.png", "b9.jpg", "a.webp", "B1.PNG", ".hidden.png"):
        photo(tmp_path / "own" / name)
    (tmp_path / "own" / "notes.txt").write_text("no image")
    assert [name for name, _ in mine(tmp_path / "own")] == ["a", "B1", "b9", "b10"]


def test_two_images_of_one_name(tmp_path: Path) -> None:
    photo(tmp_path / "own" / "a.png")
    photo(tmp_path / "own" / "a.webp")
    with pytest.raises(OdmError) as error:
        mine(tmp_path / "own")
    one_line(error, "a.webp", "a.png", "rename")


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(OdmError) as error:
        mine(tmp_path / "none")
    one_line(error, "images.folders.mine", "no folder", str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(OdmError) as error:
        mine(tmp_path / "empty")
    one_line(error, "images.folders.mine", "no images", str(tmp_path / "empty"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("kept", [0, 0.1, 0.6])
def test_truncated_image(tmp_path: Path, suffix: str, kept: float) -> None:
    file = photo(tmp_path / "own" / f"a.{suffix}", (64, 64))
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(OdmError) as error:
        mine(tmp_path / "own")
    one_line(error, str(file), "damaged", "replace it")


def test_image_smaller_than_its_scale_allows(tmp_path: Path) -> None:
    file = photo(tmp_path / "own" / "a.png", (40, 31))
    assert mine(tmp_path / "own")
    with pytest.raises(OdmError) as error:
        mine(tmp_path / "own", scales=[2, 4])
    one_line(error, str(file), "40x31", "x4", "32")


def test_modes(tmp_path: Path) -> None:
    grey = photo(tmp_path / "grey.png", mode="L")
    assert read_image(grey).shape == (18, 20)
    opaque = read_image(photo(tmp_path / "rgb.png"))
    Image.fromarray(np.dstack([opaque, np.full((18, 20), 255, np.uint8)])).save(tmp_path / "opaque.png")
    assert np.array_equal(read_image(tmp_path / "opaque.png"), opaque)
    Image.fromarray(opaque).quantize(16).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (18, 20, 3)
    wide = np.linspace(0, 65535, 360).round().astype(np.uint16).reshape(18, 20)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert np.array_equal(read_image(tmp_path / "wide.png"), np.round(wide / 257).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "a.png"
    if mode == "P":
        Image.fromarray(read_image(photo(tmp_path / "rgb.png"))).quantize(16).save(file, transparency=3)
    else:
        photo(file, mode=mode)
    with pytest.raises(OdmError) as error:
        read_image(file)
    one_line(error, "a.png", "transparen")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """A benchmark of two images, in the catalogue for the length of a test."""
    entry = Benchmark(2, "none", ("Tiny/HR", "Tiny"), left_out="bad")
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    return entry


@pytest.mark.parametrize("layout", ["Tiny/HR", "Tiny"])
def test_benchmark_under_a_root(tmp_path: Path, tiny: Benchmark, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    for name in ("1.png", "2.png", "bad.png"):
        photo(tmp_path / "sets" / layout / name)
    root = str(tmp_path / "sets")
    assert [name for name, _ in read_set("tiny", settings(root=root))] == ["1", "2"]
    monkeypatch.setenv(ROOT_VARIABLE, root)
    assert [name for name, _ in read_set("tiny", settings())] == ["1", "2"]
    photo(tmp_path / "sets" / layout / "3.png")
    with pytest.raises(OdmError) as error:
        list(read_set("tiny", settings()))
    one_line(error, layout, "3 images where 'tiny' has 2")


def test_root_that_is_no_folder(tmp_path: Path, tiny: Benchmark) -> None:
    with pytest.raises(OdmError) as error:
        list(read_set("tiny", settings(root=str(tmp_path / "none"))))
    one_line(error, "images.root", "no folder")


def test_set_that_is_nowhere(tiny: Benchmark) -> None:
    with pytest.raises(OdmError) as error:
        list(read_set("tiny", settings()))
    one_line(error, "tiny", "downloads/tiny/images", "images.folders.tiny")
    with pytest.raises(OdmError) as error:
        list(read_set("unheard_of", settings()))
    one_line(error, "unheard_of", "images.folders.unheard_of")


def test_numbered_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "tiny", Benchmark(2, "none", ("Tiny",), numbers=range(1, 3)))
    for name in ("0001.png", "0002.png", "0003.png", "cover.png"):
        photo(tmp_path / "Tiny" / name)
    assert [name for name, _ in read_set("tiny", settings(root=str(tmp_path)))] == ["0001", "0002"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["set5", "set14", "b100", "urban100", "bsds500_train", "bsds500_test", "cid22"])
def test_real_sets_are_found_whole(odm_images: Path, name: str) -> None:
    entry = CATALOGUE[name]
    assert isinstance(entry, Benchmark)
    images = dict(read_set(name, settings(root=str(odm_images))))
    assert len(images) == entry.count
    greys = [each for each, image in images.items() if image.ndim == 2]
    assert greys == (["bridge"] if name == "set14" else [])
    assert name == "cid22" or entry.pixels  # and `read_set` has found its pixels to be those


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark of three images, one of them grey, that is known by its pixels; where it lies."""
    folder = tmp_path / "sets" / "Tiny"
    files = [photo(folder / "a.png", (24, 36), seed=1), photo(folder / "b.png", (25, 36), seed=2)]
    files.append(photo(folder / "grey.png", (24, 36), mode="L", seed=3))
    pixels = [read_image(file) for file in files]
    entry = Benchmark(
        3, "none", ("Tiny",), pixels=set_digest(map(signature, pixels)), greys=frozenset({digest(pixels[2])})
    )
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "sets"))
    return folder


def test_published_pixels_under_other_names_and_formats(known: Path) -> None:
    before = [image for _, image in read_set("tiny", settings())]
    Image.open(known / "a.png").save(known / "img_002.webp", lossless=True)
    (known / "a.png").unlink()
    (known / "b.png").rename(known / "img_001.png")
    Image.open(known / "grey.png").convert("RGB").save(known / "grey.png")
    after = dict(read_set("tiny", settings()))
    assert list(after) == ["grey", "img_001", "img_002"]
    assert all(np.array_equal(a, b) for a, b in zip(before, [*list(after.values())[:0:-1], after["grey"]], strict=True))


def test_a_colour_image_of_equal_channels_stays_one(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = CATALOGUE["tiny"]
    assert isinstance(entry, Benchmark)
    colour = [*(image for _, image in read_set("tiny", settings()))][:2]
    three = np.repeat(read_image(known / "grey.png")[..., None], 3, 2)
    pixels = set_digest(map(signature, [*colour, three]))
    monkeypatch.setitem(CATALOGUE, "tiny", dataclasses.replace(entry, greys=frozenset(), pixels=pixels))
    assert np.array_equal(dict(read_set("tiny", settings()))["grey"], three)


def test_other_pixels_under_a_published_name(known: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = read_image(known / "b.png").copy()
    image[3, 4, 1] ^= 1
    Image.fromarray(image).save(known / "b.png")
    with pytest.raises(OdmError) as error:
        list(read_set("tiny", settings()))
    one_line(error, str(known), "not the pixels of the published 'tiny'", "images.folders")
    assert "12" not in str(error.value).replace(str(known), "")
    Image.fromarray(image[:, :24]).save(known / "b.png")
    with pytest.raises(OdmError) as error:
        list(read_set("tiny", settings()))
    one_line(error, "multiples of 12", "cropped")
    # A folder that the user named is the user's to answer for, of whatever size.
    (known / "a.png").unlink()
    assert len(list(read_set("tiny", settings(folders={"tiny": str(known)})))) == 2
    told = capsys.readouterr().out
    assert told.startswith("note: images.folders.tiny: 2 images where 'tiny' has 3")
    assert "published" in told


@pytest.mark.slow
def test_cropped_set5_is_noticed(tmp_path: Path, odm_images: Path) -> None:
    for name, image in read_set("set5", settings(root=str(odm_images))):
        target = tmp_path / "sets" / "Set5" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[: image.shape[0] // 12 * 12, : image.shape[1] // 12 * 12]).save(target)
    with pytest.raises(OdmError) as error:
        list(read_set("set5", settings(root=str(tmp_path / "sets"))))
    one_line(error, "Set5", "cropped")


def test_listing_an_unreadable_folder(tmp_path: Path) -> None:
    with pytest.raises(OdmError) as error:
        images_in(photo(tmp_path / "file.png"))
    one_line(error, "file.png", "cannot be read")


@pytest.mark.slow
def test_no_image_of_the_benches_is_in_two_splits(odm_images: Path) -> None:
    """Trained on, chosen by, tested on: the photographs of all suites that name benchmarks, by their pixels."""
    sets: dict[str, set[str]] = {"train": set(), "held": set(), "test": set()}
    for file in (ROOT / "suites").glob("*.yaml"):
        images = yaml.safe_load(file.read_text())["images"]
        if "bsds500_train" in images["train"]:
            sets["train"] |= set(images["train"])
            sets["held" if file.stem == "study" else "test"] |= set(images["test"])
    assert all(sets.values())
    images = Images.model_validate({"train": ["set5"], "test": ["set14"], "scales": [2], "root": str(odm_images)})
    found = {
        split: {identity(pixels) for name in names for _, pixels in read_set(name, images)}
        for split, names in sets.items()
    }
    for a, b in (("train", "held"), ("train", "test"), ("held", "test")):
        assert not found[a] & found[b], (a, b)
