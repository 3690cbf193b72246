import dataclasses
import errno
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from bignas_tf.data import Split
from bignas_tf.data import images as images_module
from bignas_tf.data.encoded import BadImages
from bignas_tf.data.errors import BrokenImageError, UnreadableImageError
from bignas_tf.data.images import decode_image, fit

RNG = np.random.default_rng(7)


def noise(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def stored(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def decode(image, size, channels, kind="PNG", **options):
    return decode_image("x", size, channels, file=stored(image, kind, **options))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_lossless_grey_files_come_back_as_they_were(kind):
    grey = noise(9, 9)
    np.testing.assert_array_equal(decode(Image.fromarray(grey), 9, 1, kind)[..., 0], grey)
    np.testing.assert_array_equal(decode(Image.fromarray(grey), 9, 3, kind)[..., 2], grey)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_colour_files_come_back_as_they_were(kind, options):
    colour = noise(9, 9, 3)
    np.testing.assert_array_equal(decode(Image.fromarray(colour), 9, 3, kind, **options), colour)


def test_jpeg_equals_the_accurate_decoder_of_tensorflow():
    import tensorflow as tf

    smooth = Image.fromarray(noise(8, 8, 3)).resize((48, 48), Image.Resampling.BICUBIC)
    file = stored(smooth, "JPEG", quality=80)
    accurate = tf.io.decode_jpeg(file.getvalue(), dct_method="INTEGER_ACCURATE").numpy()
    difference = decode_image("x", 48, 3, file=file).astype(int) - accurate
    assert abs(difference).max() <= 1


def test_colour_becomes_luma_by_the_weights_of_bt_601():
    colour = noise(9, 9, 3)
    luma = colour @ [0.299, 0.587, 0.114]
    assert abs(decode(Image.fromarray(colour), 9, 1)[..., 0] - luma).max() <= 0.51


def test_sixteen_bits_are_scaled_not_clipped():
    deep = RNG.integers(0, 65536, (9, 9)).astype(np.uint16)
    deep[0, :4] = [0, 255, 32768, 65535]
    expected = np.floor(deep / 257 + 0.5)
    np.testing.assert_array_equal(decode(Image.fromarray(deep), 9, 1)[..., 0], expected)
    np.testing.assert_array_equal(decode(Image.fromarray(deep), 9, 3)[..., 1], expected)
    # Older versions of Pillow open such files with 32-bit pixels.
    np.testing.assert_array_equal(
        fit(Image.fromarray(deep.astype(np.int32)), 9, 1)[..., 0], expected
    )


def test_palettes_give_their_colours_with_and_without_transparency():
    palette = noise(4, 3)
    indices = RNG.integers(0, 4, (9, 9)).astype(np.uint8)
    image = Image.fromarray(indices, "L").convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(palette.ravel().tolist())
    for options in ({}, {"transparency": bytes([0, 128, 255, 255])}, {"transparency": 2}):
        np.testing.assert_array_equal(decode(image, 9, 3, **options), palette[indices])


def test_alpha_is_dropped():
    colour = noise(9, 9, 4)
    np.testing.assert_array_equal(decode(Image.fromarray(colour), 9, 3), colour[..., :3])
    grey = noise(9, 9, 2)
    np.testing.assert_array_equal(decode(Image.fromarray(grey, "LA"), 9, 1), grey[..., :1])


def test_one_bit_images_become_black_and_white():
    bits = noise(9, 9) > 127
    np.testing.assert_array_equal(decode(Image.fromarray(bits), 9, 1)[..., 0], bits * 255)


@pytest.mark.parametrize("ink", [(0, 0, 0, 0), (255, 0, 0, 0), (10, 200, 90, 60)])
def test_cmyk_jpegs_are_inks_on_white_paper(ink):
    image = decode(Image.new("CMYK", (16, 16), ink), 16, 3, "JPEG", quality=100, subsampling=0)
    light = [(255 - ink[i]) * (255 - ink[3]) / 255 for i in range(3)]
    assert abs(image - np.array(light)).max() <= 2


def test_an_animation_gives_its_first_frame():
    first, second = Image.new("L", (8, 8), 10), Image.new("L", (8, 8), 200)
    image = decode(first, 8, 1, "GIF", save_all=True, append_images=[second])
    assert (image == 10).all()


def oriented(value, **tags):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    for name, other in tags.items():
        exif[ExifTags.Base[name]] = other
    return exif


# Where the standard says that the first row and the first column are to be seen.
UPRIGHT = {
    1: lambda pixels: pixels,  # top, left
    2: lambda pixels: pixels[:, ::-1],  # top, right
    3: lambda pixels: pixels[::-1, ::-1],  # bottom, right
    4: lambda pixels: pixels[::-1],  # bottom, left
    5: lambda pixels: pixels.swapaxes(0, 1),  # left, top
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],  # right, top
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],  # left, bottom
    9: lambda pixels: pixels,  # no orientation
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_image_is_turned_as_its_exif_says(kind, orientation):
    pixels = noise(9, 9, 3)
    image = decode(Image.fromarray(pixels), 9, 3, kind, exif=oriented(orientation))
    np.testing.assert_array_equal(image, UPRIGHT[orientation](pixels))


def test_a_phones_lying_photograph_is_cropped_upright():
    lying = Image.fromarray(noise(8, 8, 3)).resize((60, 40), Image.Resampling.BICUBIC)
    plain = np.asarray(Image.open(stored(lying, "JPEG")))
    sizes = []

    class TopLeft:
        def box(self, width, height):
            sizes.append((width, height))
            return 0, 0, 20, 20

        def edit(self, image):
            return image

    file = stored(lying, "JPEG", exif=oriented(6))
    top = decode_image("x", 20, 3, file=file, view=TopLeft())
    assert sizes == [(40, 60)]
    # Its top left is the bottom left of what is stored, turned clockwise.
    np.testing.assert_array_equal(top, np.rot90(plain[20:, :20], -1))


@pytest.mark.parametrize("exif", [b"Exif\0\0nothing", b"Exif\0\0", b"\0"])
def test_broken_exif_leaves_an_image_as_it_is_stored(exif):
    pixels = noise(9, 9, 3)
    image = decode(Image.fromarray(pixels), 9, 3, exif=exif)
    np.testing.assert_array_equal(image, pixels)


def test_broken_exif_beside_the_orientation_does_not_matter():
    # -1 over 0, a signed rational, which Pillow reads but cannot write back.
    exif = oriented(6, XResolution=7.0).tobytes()
    broken = exif.replace(b"\x01\x1a\0\x05", b"\x01\x1a\0\x0a")
    broken = broken.replace(b"\0\0\0\x07\0\0\0\x01", b"\xff\xff\xff\xff\0\0\0\0")
    assert len(broken) == len(exif) and broken != exif
    pixels = noise(9, 9, 3)
    image = decode(Image.fromarray(pixels), 9, 3, exif=broken)
    np.testing.assert_array_equal(image, UPRIGHT[6](pixels))


@pytest.mark.parametrize("shape", [(20, 40), (40, 20)])
def test_another_size_is_resized_whole_and_cropped_to_its_centre(shape):
    image = Image.fromarray(noise(*shape, 3))
    whole = image.resize((shape[1] // 2, shape[0] // 2), Image.Resampling.BICUBIC)
    top, left = (shape[0] // 2 - 10) // 2, (shape[1] // 2 - 10) // 2
    expected = np.asarray(whole)[top : top + 10, left : left + 10].astype(int)
    # Pillow picks the cheaper of rows first and columns first, and rounds after each.
    assert abs(fit(image, 10, 3) - expected).max() <= 2


@pytest.mark.parametrize("size", [5, 8, 24, 32])
def test_resizing_is_bicubic_with_antialias(size):
    import tensorflow as tf

    image = noise(16, 16, 3) // 2 + 64  # bicubic overshoots: stay away from 0 and 255
    expected = tf.image.resize(image, (size, size), method="bicubic", antialias=True).numpy()
    # Pillow rounds to 8 bits after rows and after columns.
    assert abs(fit(Image.fromarray(image), size, 3) - expected).max() <= 1.5


def test_a_wide_image_of_the_right_height_is_only_cropped():
    image = noise(8, 13, 3)
    np.testing.assert_array_equal(fit(Image.fromarray(image), 8, 3), image[:, 2:10])


@pytest.mark.parametrize("content", [b"", b"no image"], ids=["empty", "text"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "bröken.png"
    path.write_bytes(content)
    with pytest.raises(BrokenImageError, match="bröken.png") as caught:
        decode_image(str(path), 8, 3)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_a_truncated_file_is_named(tmp_path, kind):
    whole = stored(Image.fromarray(noise(64, 64, 3)), kind).getvalue()
    path = tmp_path / "short"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenImageError, match="short"):
        decode_image(str(path), 64, 3)


@pytest.mark.parametrize("failures", [3, 4])
@pytest.mark.parametrize("bad_images", [None, BadImages()], ids=["stop", "skip"])
def test_a_file_that_the_system_fails_to_read_is_tried_again_and_never_skipped(
    tmp_path, monkeypatch, failures, bad_images
):
    image = noise(6, 6, 3)
    Image.fromarray(image).save(tmp_path / "0.png")
    Image.fromarray(noise(6, 6, 3)).save(tmp_path / "1.png")
    split = dataclasses.replace(
        split_of([str(tmp_path / f"{i}.png") for i in range(2)]), bad_images=bad_images
    )
    read, tries, pauses = Path.read_bytes, [], []

    def read_bytes(path):
        tries.append(path)
        if len(tries) <= failures:
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    monkeypatch.setattr(images_module.time, "sleep", pauses.append)
    if failures == 3:
        np.testing.assert_array_equal(split.read(np.array([0]))[0], image)
    else:
        with pytest.raises(UnreadableImageError, match="0.png'.*Stale file handle.") as caught:
            split.read(np.array([0]))
        assert caught.value.path == str(tmp_path / "0.png")
    assert len(tries) == 4 and pauses == [0.1, 1.0, 5.0]
    assert not bad_images


def test_floating_point_pixels_are_refused():
    with pytest.raises(ValueError, match="floating-point"):
        fit(Image.fromarray(np.zeros((8, 8), np.float32)), 8, 1)


def split_of(paths):
    labels = np.zeros(len(paths), np.int32)
    return Split(labels, paths=tuple(paths), image_size=6, channels=3)


def test_files_decoded_in_parallel_keep_their_order(tmp_path):
    images = noise(40, 6, 6, 3)
    paths = [str(tmp_path / f"{i}.png") for i in range(40)]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(split_of(paths).read(np.arange(40)), images)


def test_of_many_broken_files_the_first_is_named(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(20)]
    for i, path in enumerate(paths):
        if i in (7, 8, 15):
            Path(path).write_bytes(b"no image")
        else:
            Image.fromarray(noise(6, 6, 3)).save(path)
    with pytest.raises(BrokenImageError, match="7.png"):
        split_of(paths).read(np.arange(20))


def test_a_lack_of_memory_is_no_fault_of_the_image(tmp_path, monkeypatch):
    path = tmp_path / "sound.png"
    Image.fromarray(noise(4, 4)).save(path)

    def lacks(*_):
        raise MemoryError

    bad = BadImages()
    split = Split(
        np.zeros(1, np.int32), paths=(str(path),), image_size=4, channels=1, bad_images=bad
    )
    monkeypatch.setattr(images_module, "fit", lacks)
    with pytest.raises(MemoryError, match=f"Not enough memory to decode image '{path}'"):
        split.read(np.arange(1))
    assert len(bad) == 0
