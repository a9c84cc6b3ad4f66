"""The pages that this project writes, in a browser: Debian's chromium, without a window."""

import html
import json
import re
import subprocess

import pytest
from helpers.browser import CHROMIUM
from helpers.runs import made_up_run

from palm_cls.checkpoints.weights import save
from palm_cls.data.loaders import ImageLoader
from palm_cls.data.palm import find_dataset
from palm_cls.eval.report import report_run, write_report
from palm_cls.models.lenet import LeNet
from palm_cls.training.experiment import train_recipe

pytestmark = pytest.mark.slow

WIDTHS = (390, 1280)  # of a phone and of a desktop, in CSS pixels
SCROLLED = {
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "small",
}  # what may be wider than the page, in a box that scrolls
# Two frames with the page in them, in which a script may look around where the page itself allows none.
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><pre id="found"></pre>%s<script>
addEventListener("load", () => {
  const look = (frame) => {
    const page = frame.contentDocument, root = page.documentElement
    const box = (element) => {
      const {width, height, left, right} = element.getBoundingClientRect()
      return {tag: element.tagName.toLowerCase(), width, height, left, right, loaded: element.naturalWidth !== 0}
    }
    return {
      width: frame.clientWidth, scroll: root.scrollWidth, title: page.title,
      paper: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
      ink: frame.contentWindow.getComputedStyle(page.body).color,
      pictures: [...page.querySelectorAll("figure svg, figure img")].map(box),
      boxes: [...page.querySelectorAll("body *:not(svg *)")].map(box),
      requests: frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name),
    }
  }
  document.getElementById("found").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(look))
})
</script>"""


def browse(page, directory, *flags):
    """Load a page (its text) in frames of all WIDTHS: (what was found in each, what the browser complained of)."""
    frames = "".join(
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(page)}"></iframe>'
        for width in WIDTHS
    )
    file = directory / "harness.html"
    file.write_text(HARNESS % frames, encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={directory / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", *flags]
    done = subprocess.run([*command, file.as_uri()], capture_output=True, encoding="utf-8", timeout=120)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(html.unescape(found[1])), re.findall(r"CONSOLE.*", done.stderr)


@pytest.fixture(scope="module")
def page(small_demo, tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("needs a browser: apt-get install chromium")
    run = tmp_path_factory.mktemp("run")
    train_recipe("lenet-relu", data=small_demo, epochs=2, output=run / "run", device="cpu", report=False)
    return report_run(run / "run", threshold=0.9).read_text(encoding="utf-8")


def faults(found, complaints):
    """What is wrong with a page, in words."""
    wrong = list(complaints)
    for frame in found:
        wrong += [f"requested: {name}" for name in frame["requests"] if not name.startswith("data:")]
        if frame["scroll"] > frame["width"]:
            wrong.append(f"{frame['scroll']} px wide in {frame['width']}")
        for picture in frame["pictures"]:
            if not picture["loaded"] or min(picture["width"], picture["height"]) < 60:
                wrong.append(f"no size: {picture}")
        for box in frame["boxes"]:
            if box["width"] and (box["left"] < -1 or box["right"] > frame["width"] + 1):
                wrong.append(f"overflows: {box}")
    return wrong


def test_the_report(page, tmp_path):
    found, complaints = browse(page, tmp_path)
    assert faults(found, complaints) == []
    for frame in found:
        kinds = [picture["tag"] for picture in frame["pictures"]]
        assert kinds.count("svg") == 6
        assert kinds.count("img") > 6
        assert frame["title"] == "lenet-relu: what the network learned"
        assert frame["paper"] == "rgb(255, 255, 255)"


def test_the_report_in_the_dark(page, tmp_path):
    found, complaints = browse(page, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert faults(found, complaints) == []
    assert all(frame["paper"] == "rgb(21, 24, 28)" and frame["ink"] == "rgb(230, 233, 236)" for frame in found)


@pytest.mark.parametrize(
    ("count", "name", "figures"),
    [(10, "Ankle boot", 4), (10, "x" * 150, 4), (3, "病理性近视", 5), (2, "x" * 150, 6), (2, "病理性近视", 6)],
)
def test_the_report_of_named_classes(tmp_path, small_demo, count, name, figures):
    images = find_dataset(small_demo).valid_images
    samples = [(path, number % count) for number, path in enumerate(sorted(images.glob("*.jpg")))]
    readers = [ImageLoader(images, samples, 5, mode, cache=False) for mode in ("train", "valid")]
    network = LeNet(num_classes=count if count > 2 else 1, activation="relu")
    run = made_up_run(tmp_path / "run", [0.1], classes=[f"{name} {number}" for number in range(count)])
    save(run / "best", network)
    found, complaints = browse(write_report(run, network, *readers).read_text(encoding="utf-8"), tmp_path)
    inner = [{**frame, "boxes": [box for box in frame["boxes"] if box["tag"] not in SCROLLED]} for frame in found]
    assert faults(inner, complaints) == []
    assert all([picture["tag"] for picture in frame["pictures"]].count("svg") == figures for frame in found)


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ('<img src="http://example.invalid/x.png">', "Content Security Policy"),
        ("<script>alert(1)</script>", "Content Security Policy"),
        ('<div style="width:2000px">wide</div>', "overflows"),
        ('<figure><img src="data:image/jpeg;base64,AAAA"></figure>', "no size"),
    ],
)
def test_a_fault_would_be_found(page, tmp_path, fault, complaint):
    found, complaints = browse(page.replace("<footer>", f"{fault}<footer>"), tmp_path)
    assert any(complaint in words for words in faults(found, complaints))
