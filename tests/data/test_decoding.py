"""Decoding: right pixels from every mode, size and orientation; what cannot be decoded is counted and named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_files import entry_of, fault, image
from lrstudy.data.cache import prepare
from lrstudy.data.decoding import decode
from lrstudy.data.spec import DataSpec, ImageSpec

SHARED = Path(__file__).parents[2] / "shared" / "data"


def test_isic_is_decoded_as_pillow_does_with_given_parts(tmp_path):
    if not (SHARED / "isic_uda1").exists():
        pytest.skip("the data set isic_uda1 is not on this machine")
    spec = DataSpec(f"folder:{SHARED / 'isic_uda1'}", image=ImageSpec(size=48))
    data = prepare(spec, tmp_path)
    assert data.images.shape == (555, 3, 48, 48)
    assert np.bincount(data.part).tolist() == [416, 0, 139]
    first = min((SHARED / "isic_uda1" / "train" / "benign").iterdir())
    expected = Image.open(first).convert("RGB").resize((48, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.images[0], np.asarray(expected).transpose(2, 0, 1))
    meta = json.loads((entry_of(tmp_path) / "meta.json").read_text())
    assert meta["counts"] == {"pool": [298, 118], "validation": [0, 0], "test": [99, 40]}
    assert meta["provenance"]["source"] == spec.source


@pytest.mark.parametrize(
    ("picture", "channels", "expected"),
    [
        (Image.new("RGB", (2, 2), (255, 0, 0)), 1, [76]),  # ITU-R 601: 0.299 * 255
        (Image.new("L", (2, 2), 7), 3, [7, 7, 7]),
        (Image.new("RGBA", (2, 2), (1, 2, 3, 0)), 3, [1, 2, 3]),
        (Image.new("LA", (2, 2), (9, 0)), 1, [9]),
        (Image.new("1", (2, 2), 1), 1, [255]),
        (Image.new("P", (2, 2), 0), 3, [0, 0, 0]),
        (Image.fromarray(np.full((2, 2), 65535, np.uint16)), 1, [255]),
        (Image.fromarray(np.full((2, 2), 257 * 100, np.uint16)), 3, [100, 100, 100]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_pixel_modes_become_eight_bits(tmp_path, picture, channels, expected):
    path = image(tmp_path / "x.png", picture)
    assert decode(path, channels, None, "squash")[:, 0, 0].tolist() == expected


def test_cmyk_becomes_rgb(tmp_path):
    path = image(tmp_path / "x.tif", Image.new("CMYK", (2, 2), (0, 255, 255, 0)))
    assert decode(path, 3, None, "squash")[:, 0, 0].tolist() == [255, 0, 0]


def test_images_are_turned_upright(tmp_path):
    pixels = np.zeros((4, 8), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after turning 90 degrees clockwise: the top row becomes the right column
    path = image(tmp_path / "x.png", pixels, exif=exif)
    upright = decode(path, 1, None, "squash")[0]
    assert upright.shape == (8, 4)
    assert upright[:, 3].tolist() == [255] * 8
    assert not upright[:, :3].any()


@pytest.mark.parametrize(
    ("resize", "columns"),
    [("squash", [0, 0, 255, 255]), ("crop", [0, 0, 255, 255]), ("pad", [0, 0, 255, 255])],
)
def test_every_way_to_resize_gives_the_size(tmp_path, resize, columns):
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, 8:] = 255
    result = decode(image(tmp_path / "x.png", pixels), 1, 4, resize)[0]
    assert result.shape == (4, 4)
    row = result[1].tolist()
    # antialiasing mixes the two columns beside the edge, symmetrically
    assert row[1] + row[2] == pytest.approx(255, abs=1)
    assert [round(row[0] / 255) * 255, round(row[3] / 255) * 255] == [columns[0], columns[3]]
    assert (result[0] == 0).all() == (resize == "pad"), "only padding adds black above"


def test_stored_channels_are_those_of_the_first_image(image_folder, tmp_path):
    image(image_folder / "b" / "colour.png", np.full((8, 8, 3), (255, 0, 0), np.uint8))
    data = prepare(DataSpec(f"folder:{image_folder}"), tmp_path / "store")
    assert data.images.shape == (5, 1, 8, 8)
    assert data.images[4, 0, 0, 0] == 76


def test_larger_images_go_through_threads_in_order(tmp_path):
    for k in range(70):
        image(tmp_path / "data" / "ab"[k % 2] / f"{k:02}.png", np.full((100, 100), k, np.uint8))
    data = prepare(DataSpec(f"folder:{tmp_path / 'data'}"), tmp_path / "store")
    assert data.images[:, 0, 50, 50].tolist() == [*range(0, 70, 2), *range(1, 70, 2)]
    assert data.labels.tolist() == [0] * 35 + [1] * 35


def test_images_that_do_not_decode_are_counted_and_five_are_named(image_folder, tmp_path):
    for k in range(7):
        (image_folder / "a" / f"bad{k}.png").write_bytes(b"" if k == 0 else b"no picture")
    message = fault(image_folder, tmp_path / "store")
    assert "data: 7 of 11 images cannot be decoded: a/bad0.png (not an image), a/bad1.png" in message
    assert message.endswith("a/bad4.png (not an image) and 2 more.")


def test_a_truncated_image_is_not_filled_up_quietly(image_folder, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
    whole = image(image_folder / "a" / "cut.png", noise).read_bytes()
    (image_folder / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert "1 of 5 images cannot be decoded: a/cut.png (" in fault(image_folder, tmp_path / "store")


def test_a_file_that_may_not_be_read_is_named(image_folder, tmp_path, monkeypatch):
    real = Image.open

    def guarded(file, *rest):
        if str(file).endswith("2.png"):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *rest)

    monkeypatch.setattr("lrstudy.data.decoding.Image.open", guarded)
    assert "1 of 4 images cannot be decoded: a/2.png (Permission denied)." in fault(image_folder, tmp_path / "s")


def test_images_of_several_sizes_need_a_size(image_folder, tmp_path):
    image(image_folder / "a" / "wide.png", np.zeros((8, 9), np.uint8))
    message = fault(image_folder, tmp_path / "store")
    assert message == (
        "data: images are stored in 2 sizes (8 x 8 (4), 9 x 8 (1)); set image.size to give all the same."
    )
    assert prepare(DataSpec(f"folder:{image_folder}", image=ImageSpec(size=6)), tmp_path / "store").size == 6


def test_stored_images_may_be_taller_than_wide(tmp_path):
    for name in ("a/1.png", "b/1.png"):
        image(tmp_path / "data" / name, np.zeros((8, 6), np.uint8))
    data = prepare(DataSpec(f"folder:{tmp_path / 'data'}"), tmp_path / "s")
    assert (data.size, data.images.shape) == ((8, 6), (2, 1, 8, 6))


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("height", "width"), [(16, 12), (10, 40), (40, 10), (12, 9), (24, 18)])
def test_images_are_resized_to_height_and_width(tmp_path, resize, height, width):
    """White pictures: the crop is white all over, padding is black where the picture of another shape does not reach."""
    path = image(tmp_path / "x.png", np.full((height, width), 255, np.uint8))
    result = decode(path, 1, (12, 9), resize)[0]
    assert result.shape == (12, 9)
    rows, columns = (result == 255).any(axis=1).sum(), (result == 255).any(axis=0).sum()
    if resize == "pad":
        scale = min(12 / height, 9 / width)
        assert (rows, columns) == (round(height * scale), round(width * scale))
    else:
        assert (rows, columns) == (12, 9)


def test_a_crop_to_height_and_width_is_the_centre_without_distortion(tmp_path):
    pixels = np.zeros((24, 40), np.uint8)
    pixels[:, 11:29] = 255  # the middle 18 of 40 columns: 24 x 18 has the shape of 12 x 9
    result = decode(image(tmp_path / "x.png", pixels), 1, (12, 9), "crop")[0]
    assert (result[:, 1:-1] == 255).all()
    assert (result > 200).all(), "antialiasing reaches one stored column beyond the cut"
    pixels[:, 13:27] = 0
    assert (decode(image(tmp_path / "y.png", pixels), 1, (12, 9), "crop")[0, :, [0, 8]] > 128).all()


@pytest.mark.parametrize(("height", "width"), [(37, 53), (53, 37), (8, 8), (1, 30)])
def test_square_images_are_cropped_and_padded_as_they_always_were(tmp_path, height, width):
    """Their caches go on to be used: the formulas are those from before there were other shapes."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    picture, side, scale = Image.fromarray(pixels), min(height, width), 16 / max(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    cropped = picture.resize((16, 16), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    scaled = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top = (scaled[0] - 16) // 2, (scaled[1] - 16) // 2
    padded = picture.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + 16, top + 16))
    path = image(tmp_path / "x.png", pixels)
    for resize, expected in (("crop", cropped), ("pad", padded)):
        assert (decode(path, 1, 16, resize)[0] == np.asarray(expected)).all()
