"""What pictures become: as `cv2.imread` makes them, or black where they are transparent, or refused."""

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from helpers import PROJECT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from palm_cls.core.errors import InputError, RunError
from palm_cls.data import decode as decode_module
from palm_cls.data import libjpeg
from palm_cls.data.decode import DecodeError, decode
from palm_cls.data.images import read_image


def clouds(width=48, height=40, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


PHOTO = Image.fromarray(clouds()[:, :, ::-1])
ALPHA = Image.fromarray(np.linspace(0, 255, 48 * 40).astype("uint8").reshape(40, 48))
TURNED = Image.Exif()
TURNED[0x112] = 6


def saved(photo, format, **options):
    content = io.BytesIO()
    photo.save(content, format, **options)
    return content.getvalue()


def encoded(img, suffix, *options):
    return cv2.imencode(suffix, img, options)[1].tobytes()


def with_alpha(photo, alpha=ALPHA):
    photo = photo.copy()
    photo.putalpha(alpha)
    return photo


JPEGS = {
    "baseline": (),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
}


def jpeg(kind="baseline", seed=0):
    return encoded(clouds(256, 224, seed), ".jpg", *JPEGS[kind])


def cut(content, share=0.4):
    """Cut off, with the end marker put after it: what "repairs" of interrupted downloads do."""
    return content[: int(len(content) * share)] + b"\xff\xd9"


@pytest.fixture
def not_counting(monkeypatch):
    """As on systems that do not count what each thread writes."""
    monkeypatch.setattr(libjpeg, "count_writes", lambda: None)


ORDINARY = {
    "colour.jpg": jpeg(),
    "progressive.jpg": jpeg("progressive"),
    "grey.jpg": saved(PHOTO.convert("L"), "JPEG"),
    "cmyk.jpg": saved(PHOTO.convert("CMYK"), "JPEG"),
    "turned.jpg": saved(PHOTO, "JPEG", exif=TURNED),
    "colour.png": saved(PHOTO, "PNG"),
    "grey.png": saved(PHOTO.convert("L"), "PNG"),
    "two colours.png": saved(PHOTO.convert("1"), "PNG"),
    "palette.png": saved(PHOTO.quantize(16), "PNG"),
    "turned.png": saved(PHOTO, "PNG", exif=TURNED),
    "opaque.png": saved(with_alpha(PHOTO, 255), "PNG"),
    "opaque and turned.png": saved(with_alpha(PHOTO, 255), "PNG", exif=TURNED),
    "webp.jpg": saved(PHOTO, "WEBP"),
    "bmp.jpg": saved(PHOTO, "BMP"),
    "tiff.jpg": saved(PHOTO, "TIFF"),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_images_are_those_of_cv2_imread(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(ORDINARY[name])
    img = read_image(path)
    assert img.dtype == np.uint8
    np.testing.assert_array_equal(img, cv2.imread(str(path)))


TRANSPARENT = {
    "colour": saved(with_alpha(PHOTO), "PNG"),
    "grey": saved(with_alpha(PHOTO.convert("L")), "PNG"),
    "palette": saved(PHOTO.quantize(16), "PNG", transparency=bytes([0, 128] + [255] * 14)),
    "one of a palette": saved(PHOTO.quantize(16), "PNG", transparency=3),
    "one colour": saved(PHOTO, "PNG", transparency=PHOTO.getpixel((3, 4))),
    "one grey": saved(PHOTO.convert("L"), "PNG", transparency=PHOTO.convert("L").getpixel((3, 4))),
    "white of two": saved(PHOTO.convert("1"), "PNG", transparency=1),
    "WebP": saved(with_alpha(PHOTO), "WEBP", lossless=True, exact=True),
    "TIFF": saved(with_alpha(PHOTO), "TIFF"),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_pixels_become_black(name):
    photo = Image.open(io.BytesIO(TRANSPARENT[name])).convert("RGBA")
    black = Image.new("RGBA", photo.size, (0, 0, 0, 255))
    expected = np.array(Image.alpha_composite(black, photo).convert("RGB"))[:, :, ::-1]
    assert (expected == 0).all(axis=2).any()
    np.testing.assert_array_equal(decode(TRANSPARENT[name]), expected)


def test_transparency_that_cannot_be_applied_is_refused():
    with pytest.raises(DecodeError, match="a TIFF of grey with transparency"):
        decode(saved(with_alpha(PHOTO.convert("L")), "TIFF"))
    with pytest.raises(DecodeError, match="it is transparent all over"):
        decode(saved(with_alpha(PHOTO, 0), "PNG"))


def test_transparent_and_turned_is_refused():
    with pytest.raises(DecodeError, match="transparent and turned by its EXIF data"):
        decode(saved(with_alpha(PHOTO), "PNG", exif=TURNED))


DEEP = {
    "12 bits in 16.png": (encoded(clouds().astype("uint16") * 16, ".png"), 16),
    "grey.png": (encoded(clouds()[:, :, 0].astype("uint16") * 257, ".png"), 16),
    "alpha.png": (encoded(np.dstack([clouds(), clouds()[:, :, 0]]).astype("uint16") * 257, ".png"), 16),
    "12 bits in 16.tif": (encoded(clouds().astype("uint16") * 16, ".tiff"), 16),
    "floats.tif": (encoded(clouds().astype("float32"), ".tiff"), 32),
    "grey floats.tif": (saved(PHOTO.convert("F"), "TIFF"), 32),
    "floats.hdr": (encoded(clouds().astype("float32") / 255, ".hdr"), 32),
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits_are_refused(tmp_path, name):
    content, bits = DEEP[name]
    (tmp_path / name).write_bytes(content)
    message = f"{bits} bits per channel, and only images of 8 are read; save it as PNG or JPEG of 8 bits"
    with pytest.raises(InputError) as error:
        read_image(tmp_path / name)
    assert str(error.value) == f"{tmp_path / name}: {message}"


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_cut_off_before_its_end_marker_is_refused_by_name(tmp_path, kind):
    whole, path = jpeg(kind), tmp_path / "眼底.jpg"
    for share in (0.4, 0.7, 0.95):
        path.write_bytes(cut(whole, share))
        with pytest.raises(InputError, match=r"眼底\.jpg: not an image that can be decoded") as error:
            read_image(path)
        assert kind == "progressive" or "(corrupt JPEG data: premature end of data segment)" in str(error.value)


def test_bytes_missing_or_too_many_within_a_jpeg():
    whole = jpeg()
    half = len(whole) // 2
    for content in (whole[:half] + bytes(600) + whole[half + 600 :], whole[:-2] + bytes(20) + whole[-2:]):
        with pytest.raises(DecodeError, match="corrupt JPEG data: "):
            decode(content)


def decoded(content):
    """(image, ""), or (None, why not)."""
    try:
        return decode(content), ""
    except DecodeError as error:
        return None, error.reason


@pytest.mark.parametrize("counting", [True, False])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_jpeg_is_refused_if_and_only_if_libjpeg_warns(counting, capfd, data):
    content = bytearray(jpeg(data.draw(st.sampled_from(list(JPEGS)))))
    start = decode_module.jpeg_segments(content)[decode_module.START_OF_SCAN] + 12
    for position in data.draw(st.lists(st.integers(start, len(content) - 3), max_size=3)):
        content[position] ^= data.draw(st.integers(1, 255))
    content = bytes(content)
    capfd.readouterr()
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    warning = capfd.readouterr().err.strip()
    with pytest.MonkeyPatch.context() as patch:
        if not counting:
            patch.setattr(libjpeg, "count_writes", lambda: None)
        img, reason = decoded(content)
    if expected is not None:
        assert reason.lower() == warning.lower()
    if warning == "":
        np.testing.assert_array_equal(img, expected)


def test_several_threads_at_once_do_not_take_the_warning_of_each_other():
    contents = [content for seed in range(12) for content in (jpeg(seed=seed), cut(jpeg(seed=seed)))]

    with ThreadPoolExecutor(4) as pool:
        assert [reason != "" for _, reason in pool.map(decoded, contents)] == [False, True] * 12


@pytest.mark.skipif(sys.platform != "linux", reason="counts what threads write as Linux does")
def test_another_process_is_asked_only_where_something_was_written(monkeypatch):
    asked = []
    monkeypatch.setattr(libjpeg, "read_warning", lambda content: asked.append(content) or "")
    whole, damaged = jpeg(), cut(jpeg())
    for content in (whole, whole, damaged, whole):
        decode(content)
    assert asked == [damaged]


def test_the_process_that_is_asked_is_out_of_reach(not_counting, tmp_path, monkeypatch):
    """Of a signal to the group of processes, as a closed terminal sends it, and of modules in the current directory."""
    (tmp_path / "signal.py").write_text("raise ImportError")
    monkeypatch.chdir(tmp_path)
    libjpeg._checker.cache_clear()
    decode(jpeg())
    assert os.getpgid(libjpeg._checker(os.getpid()).process.pid) != os.getpgid(0)


def test_the_process_that_is_asked_may_end(not_counting):
    decode(jpeg())
    process = libjpeg._checker(os.getpid()).process
    process.kill()
    process.wait()
    with pytest.raises(RunError, match="the process that checks JPEGs"):
        decode(jpeg())
    np.testing.assert_array_equal(decode(jpeg()), cv2.imdecode(np.frombuffer(jpeg(), np.uint8), cv2.IMREAD_COLOR))
    with pytest.raises(DecodeError, match="premature end"):
        decode(cut(jpeg()))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_without_standard_error_and_in_a_fork(tmp_path):
    (tmp_path / "whole.jpg").write_bytes(jpeg())
    (tmp_path / "cut.jpg").write_bytes(cut(jpeg()))
    code = """
import os, sys
from palm_cls.data.images import read_image
def results():
    for name in ("whole.jpg", "cut.jpg", "whole.jpg"):
        try:
            yield len(read_image(name))
        except ValueError:
            yield 0
os.write(1, repr([*results()]).encode())
if os.fork() == 0:
    os.write(1, repr([*results()]).encode())
    os._exit(0)
os.wait()
os.write(1, repr([*results()]).encode())
"""
    for closed in (lambda: os.close(2), lambda: None):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            preexec_fn=closed,
            timeout=60,
        )
        assert done.stdout.decode() == "[224, 0, 224]" * 3


def test_none_of_the_real_images_is_refused(real_palm, not_counting):
    for path in [
        *sorted(real_palm.glob("PALM-*400/**/*.jpg"))[::10],
        *sorted((real_palm.parent / "palm_fullres").glob("*")),
    ]:
        np.testing.assert_array_equal(read_image(path), cv2.imread(str(path)))
