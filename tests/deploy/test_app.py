"""The page to try a network on: its cards, and the page itself in a browser, with real uploads."""

import base64
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers import PROJECT
from helpers.browser import CHROMIUM, browsing

from palm_cls.checkpoints.weights import save
from palm_cls.core import device
from palm_cls.core.console import DEMO_WARNING, DISCLAIMER
from palm_cls.core.errors import InputError
from palm_cls.core.html import thumbnail
from palm_cls.data.images import read_image, transform_img
from palm_cls.data.labels import CLASSES
from palm_cls.deploy import app
from palm_cls.deploy.predict import predict_images
from palm_cls.eval.gradcam import grad_cam, overlay
from palm_cls.recipes import build_model

CARD = re.compile(r"<article class='palm-card( positive| bad)?'.*?</article>", re.DOTALL)


@pytest.fixture(scope="module")
def model():
    device.set_seed(1)
    return build_model("lenet-relu")


@pytest.fixture
def photos(small_demo, tmp_path):
    """Paths of three images of the demo set."""
    sources = sorted((small_demo / "PALM-Validation400").glob("*.jpg"))[:3]
    return [Path(shutil.copy(path, tmp_path)) for path in sources]


# The cards


def pictures(card):
    """The images in a card, uint8 BGR."""
    contents = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', card)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR) for content in contents]


def test_a_card_shows_a_photograph_its_probability_and_the_heat_maps_of_both_answers(model, photos):
    expected = [row.probability for row in predict_images(model, photos)]
    threshold = sorted(expected)[1]
    cards = list(CARD.finditer(app.render_cards(model, photos, threshold)))
    assert [float(re.search("data-probability=(.+)", card[0])[1]) for card in cards] == expected  # to the bit
    assert [card[1] == " positive" for card in cards] == [value > threshold for value in expected]
    for path, probability, card in zip(photos, expected, cards):
        assert f"<h2>{path.name}</h2>" in card[0]
        assert f"<b>{probability:.4f}</b>" in card[0]
        photo = read_image(path)
        small, img = thumbnail(photo, app.DISPLAY_SIZE), transform_img(photo)
        drawn = [small, *(overlay(small, grad_cam(model, img, label=label)) for label in (0, 1))]
        found = pictures(card[0])
        assert [img.shape for img in found] == [img.shape for img in drawn]
        for one, other in zip(found, drawn):
            assert np.abs(one.astype(int) - other).mean() < 5  # what JPEG leaves of it


def test_what_cannot_be_read_gets_a_card_that_says_so_and_the_rest_its_prediction(model, photos, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "half.jpg").write_bytes(photos[0].read_bytes()[:4000] + b"\xff\xd9")
    paths = [tmp_path / "gone.jpg", photos[0], tmp_path / "empty.jpg", tmp_path / "half.jpg"]
    gone, read, empty, half = CARD.finditer(app.render_cards(model, paths, 0.5))
    assert "Not predicted 未能预测: no such image<" in gone[0]
    assert "Not predicted 未能预测: not an image that can be decoded (it is empty); replace" in empty[0]
    assert "Not predicted 未能预测: not an image that can be decoded (corrupt JPEG data: premature" in half[0]
    assert (gone[1], empty[1], half[1]) == (" bad", " bad", " bad")
    assert "Not predicted" not in read[0]
    assert str(tmp_path) not in gone[0] + empty[0]


def test_no_name_is_markup(model, tmp_path):
    shown = app.render_cards(model, [tmp_path / "<img src=x onerror=alert(1)>'\".jpg"], 0.5, ["<b>", "<i>"])
    assert "<h2>&lt;img src=x onerror=alert(1)&gt;&#x27;&quot;.jpg</h2>" in shown
    assert "<b>" not in app.render_cards(model, [], 0.5, ["<b>", "<i>"])


def test_too_many_at_once(model, photos, monkeypatch):
    monkeypatch.setattr(app, "MAX_FILES", 2)
    shown = app.render_cards(model, photos, 0.5)
    assert len(CARD.findall(shown)) == 2
    assert "Not looked at: 1. Give at most 2 at a time." in shown
    assert "Not looked at" not in app.render_cards(model, photos[:2], 0.5)


# Three classes or more


@pytest.fixture(scope="module")
def six():
    """A network of six classes, and their names."""
    device.set_seed(1)
    model = build_model("palm", 64, 6)
    model.fc.weight.set_value(model.fc.weight * 100)
    return model, ["正常", "高度近视", "<b>", "d", "e", "f"]


def test_a_card_of_more_classes_shows_the_largest_probabilities(six, photos):
    model, classes = six
    shown = app.render_cards(model, photos, 0.5, classes)
    cards = [found[0] for found in CARD.finditer(shown)]
    assert len(cards) == len(photos)
    assert "data-probability" not in shown  # which the threshold would move
    assert "<b>" not in re.sub(r"<b>\d\.\d{4}</b>", "", shown)
    for path, card, expected in zip(photos, cards, predict_images(model, photos)):
        largest = sorted(expected.probabilities, reverse=True)[: app.MAX_SHOWN]
        found = re.findall(r"<li style='--probability:(.+)'><span>(.+)</span> <b>(.+)</b>", card)
        assert [float(value) for value, _, _ in found] == largest  # to the bit
        assert [text for _, _, text in found] == [f"{value:.4f}" for value in largest]
        names = [classes[expected.probabilities.index(value)].replace("<b>", "&lt;b&gt;") for value in largest]
        assert [name for _, name, _ in found] == names
        assert f"<p class=answer>{names[0]}</p>" in card
        assert "<p>Classes not shown 未显示的类别: 1</p>" in card
        photo = read_image(path)
        small, img = thumbnail(photo, app.DISPLAY_SIZE), transform_img(photo, 64)
        drawn = [small, overlay(small, grad_cam(model, img, label=expected.label))]
        assert len(pictures(card)) == len(drawn)
        for one, other in zip(pictures(card), drawn):
            assert np.abs(one.astype(int) - other).mean() < 5


def test_a_card_names_all_of_few_classes_and_what_cannot_be_read(photos, tmp_path):
    device.set_seed(1)
    shown = app.render_cards(build_model("palm", 64, 3), [photos[0], tmp_path / "gone.jpg"], 0.5, ["a", "b", "c"])
    read, gone = (found[0] for found in CARD.finditer(shown))
    assert sorted(re.findall("<span>(.)</span>", read)) == ["a", "b", "c"]
    assert "not shown" not in read
    assert "Not predicted 未能预测: no such image<" in gone


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """The file of untrained weights of three classes."""
    file = tmp_path_factory.mktemp("three") / "best"
    spec = {"size": 64, "channels": "BGR", "range": [-1.0, 1.0]}
    save(file, build_model("palm", 64, 3), metadata={"model": "palm", "input": spec, "classes": ["a", "b", "c"]})
    return file.with_suffix(".pdparams")


def test_a_threshold_is_for_two_classes(three, monkeypatch):
    monkeypatch.setattr(app, "_import_gradio", lambda folder: None)
    with pytest.raises(InputError, match="a threshold separates two classes; this network has 3"):
        app.serve_page(three, threshold=0.3)


# Uploads


def test_uploads_are_deleted_with_their_directories(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "a.jpg").write_text("upload")
    (tmp_path / "two" / "a.jpg").write_text("of another")
    app.delete_uploads([tmp_path / "one" / "a.jpg", tmp_path / "one" / "gone.jpg", tmp_path / "two" / "gone.jpg"])
    assert sorted(map(str, tmp_path.rglob("*"))) == [str(tmp_path / "two"), str(tmp_path / "two" / "a.jpg")]


def test_stale_files_are_deleted(tmp_path):
    for age, name in ((100, "old"), (0, "new")):
        (tmp_path / name / "within").mkdir(parents=True)
        for path in (tmp_path / f"{name}.part", tmp_path / name / "a.jpg"):
            path.write_text("upload")
        for path in [*tmp_path.rglob(f"{name}*"), *(tmp_path / name).rglob("*")]:
            os.utime(path, (time.time() - age,) * 2)
    app.delete_stale(tmp_path, time.time() - 50)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.jpg", "new.part"]
    assert (tmp_path / "new" / "within").is_dir()
    assert not (tmp_path / "old" / "within").exists()


@pytest.mark.parametrize(
    ("gradio", "message"),
    [
        (None, "gradio is not installed"),
        (SimpleNamespace(), "gradio cannot be imported (cannot import name 'route_utils'"),
        (SimpleNamespace(__version__="4.44.1", route_utils=None), "gradio 4.44.1 does not fit this page"),
        (SimpleNamespace(__version__="7.0.0", route_utils=None), "gradio 7.0.0 does not fit this page"),
    ],
)
def test_without_a_fitting_gradio(tmp_path, monkeypatch, gradio, message):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(app.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        app.serve_page(tmp_path / "weights")
    assert f'python -m pip install "{app.GRADIO}" (Python 3.10 or newer)' in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_exported_network_gives_no_heat_maps(tmp_path):
    with pytest.raises(InputError, match=r"some\.onnx: exported, and gives no heat maps; take the weights"):
        app.serve_page(tmp_path / "some.onnx")


# The page itself

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason=f'needs Gradio: python -m pip install "{app.GRADIO}"'
)
CARDS = """[...document.querySelectorAll(".palm-card")].map((card) => ({
  name: card.querySelector("h2").innerText, text: card.innerText, positive: card.classList.contains("positive"),
  pictures: [...card.querySelectorAll("img")].filter((img) => img.offsetWidth > 60 && img.naturalWidth > 60)
    .map((img) => img.alt),
}))"""
MOVE = """(() => {
  const slider = document.querySelector("input[type=range]")
  slider.value = %s
  slider.dispatchEvent(new Event("input", {bubbles: true}))
})()"""


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("weights")
    save(directory / "some", model, metadata={"model": "lenet-relu", "classes": CLASSES, "demo": True})
    return directory / "some.pdparams"


@contextlib.contextmanager
def served(weights, place, *args):
    """The page, served by the tool with its temporary files in `place`: (process, address)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, str(PROJECT / "tools" / "app.py"), "--weights", str(weights), "--port", port, *args]
    environment = {**os.environ, "TMPDIR": str(place), "http_proxy": "http://127.0.0.1:9"}
    environment["ALL_PROXY"] = "socks5://127.0.0.1:9"  # where nobody listens
    with open(place / "stderr.txt", "w") as stderr:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        line = process.stdout.readline()
        assert line == f"The page is at http://127.0.0.1:{port}/ until you press Ctrl-C.\n", place
        yield process, line.split()[4]
    finally:
        process.kill()
        process.wait()


def kept(place):
    """The directory of the uploads, and the files there that are not empty."""
    (folder,) = place.glob("palm_cls-*")
    return folder, [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.slow
@needs_gradio
@pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt-get install chromium")
def test_the_page_in_a_browser(weights, model, photos, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    bad, huge = tmp_path / "damaged.jpg", tmp_path / "huge.jpg"
    bad.write_bytes(photos[0].read_bytes()[:-100])
    huge.write_bytes(b"\xff\xd8\xff" + bytes(app.MAX_MEGABYTES * 1_000_000 + 1_000_000))
    expected = [f"{row.probability:.4f}" for row in predict_images(model, photos)]
    with served(weights, place, "--threshold", "0") as (process, address), browsing(tmp_path / "profile") as tab:
        for width in (390, 1280):  # of a phone and of a desktop
            tab.open(address, width)
            tab.wait("document.querySelector('input[type=file]') && document.querySelector('input[type=range]')")
            assert DISCLAIMER in tab.run("document.body.innerText")
            assert DEMO_WARNING in tab.run("document.body.innerText")

            tab.upload("input[type=file]", [*photos, bad])
            tab.wait("document.querySelectorAll('.palm-card').length === 4")
            *cards, damaged = tab.run(CARDS)
            assert [card["name"] for card in cards] == [path.name for path in photos]
            assert [card["text"].split()[-1] for card in cards] == expected
            for card in cards:
                assert card["positive"]
                assert card["pictures"] == ["The photograph 照片", "Heat map 热力图: pathological myopia 病理性近视"]
                assert "\npathological myopia 病理性近视\n" in card["text"]
            assert "(it is truncated)" in damaged["text"]
            assert tab.run("document.documentElement.scrollWidth") <= width
            tab.screenshot(tmp_path / f"{width}.png")
            folder, files = kept(place)
            assert files == []  # of what was uploaded
            assert folder.stat().st_mode & 0o777 == 0o700

            tab.run(MOVE % 1)  # the threshold
            tab.wait("!document.querySelector('.palm-card.positive')")
            for card in tab.run(CARDS)[:3]:
                assert card["pictures"][1] == "Heat map 热力图: no pathological myopia 非病理性近视"
                assert "\nno pathological myopia 非病理性近视\n" in card["text"]

        tab.upload("input[type=file]", [huge])
        tab.wait("document.body.innerText.includes('maximum allowed size of 20.0 Mb: \"huge.jpg\"')")
        assert kept(place)[1] == []
        elsewhere = [name for name in tab.requests if not name.startswith((address, "data:", "blob:"))]
        assert elsewhere == []
        assert [text for text in tab.complaints if "/upload_progress?" not in text] == []  # Gradio asks once too often
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert process.stdout.read() == ""
    assert (place / "stderr.txt").read_text().splitlines()[1:] == [DISCLAIMER, DEMO_WARNING, "app.py: interrupted"]
    assert list(place.glob("palm_cls-*")) == []


@pytest.mark.slow
@needs_gradio
@pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt-get install chromium")
def test_the_page_of_three_classes(three, photos, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    with served(three, place) as (_, address), browsing(tmp_path / "profile") as tab:
        for width in (390, 1280):
            tab.open(address, width)
            tab.wait("document.querySelector('input[type=file]')")
            assert "What palm sees in a photograph" in tab.run("document.body.innerText")
            tab.upload("input[type=file]", photos)
            tab.wait("document.querySelectorAll('.palm-card').length === 3")
            assert not tab.run("document.querySelector('input[type=range]')")  # no threshold
            for card in tab.run(CARDS):
                assert len(card["pictures"]) == 2
                assert re.search(r"\n[abc]\n", card["text"])
            assert tab.run("document.documentElement.scrollWidth") <= width
            tab.screenshot(tmp_path / f"{width}.png")


def upload(address, content):
    """Upload a photograph as a page does; the path that it is given."""
    head = 'Content-Disposition: form-data; name="files"; filename="P1.jpg"\r\nContent-Type: image/jpeg'
    body = b"--limit\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n--limit--\r\n"
    request = urllib.request.Request(
        f"{address}gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=limit"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        (path,) = json.load(answer)
    return path


@pytest.mark.slow
@needs_gradio
def test_uploads_of_two_are_two_and_go_with_the_page(weights, photos, tool, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    with served(weights, place) as (process, address):
        content = photos[0].read_bytes()
        paths = {upload(address, content) for _ in range(2)}  # whoever is predicted first takes nobody's away
        assert len(paths) == 2
        folder, files = kept(place)
        assert set(map(str, files)) == paths

        port = address.rstrip("/").rpartition(":")[2]
        with socket.socket() as other, pytest.raises(ConnectionRefusedError):  # only one address is listened on
            other.connect(("127.0.0.2", int(port)))
        done = tool("app", "--weights", weights, "--port", port)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1] == f"app.py: --port {port}: cannot listen there; something else may already"

        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert not folder.exists()
    assert list(place.glob("palm_cls-*")) == []
