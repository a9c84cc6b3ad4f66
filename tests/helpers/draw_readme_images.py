"""Draw the pictures of the documents into .github/images: from drawn eyes only, never from photographs.

    python tests/helpers/draw_readme_images.py --runs output

It needs chromium, for the picture of a report, and trains what --runs lacks of lenet, lenet-relu and alexnet.
"""

import argparse
import base64
import csv
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

PROJECT = Path(__file__).resolve().parents[2]
IMAGES = PROJECT / ".github" / "images"
RUNS = {"lenet": "LeNet", "lenet-relu": "LeNet with ReLU", "alexnet": "AlexNet"}
COLORS = {"lenet": "#d55e00", "lenet-relu": "#009e73", "alexnet": "#0072b2"}
SIZE, GAP, CAPTION = 320, 8, 30  # pixels of an eye in a picture, between eyes, and below them
NORMAL, ILL = 1, 13  # seeds of the two eyes that are shown
INK = "#1b1f23"
REPORT_SIZE = (1000, 1010)  # CSS pixels of the report's top: numbers and curves


def train_missing(runs, data):
    """Train each of RUNS that is not in the directory `runs` on the demo set in `data`, which is drawn if absent."""
    from palm_cls.data.data_root import DEMO_MARK, DEMO_TEXT
    from palm_cls.data.demo_set import write_demo_set

    if missing := [name for name in RUNS if not Path(runs, name, "log.csv").is_file()]:
        write_demo_set(data)
        Path(data, DEMO_MARK).write_text(DEMO_TEXT, encoding="utf-8")
    for name in missing:
        command = [sys.executable, str(PROJECT / "tools" / "train.py"), "--model", name]
        subprocess.run([*command, "--data", str(data), "--output", str(Path(runs, name))], check=True)


def draw_eye(kind, seed):
    """Draw the eye of a seed, uint8 BGR [SIZE, SIZE, 3]; kind: "N" normal, "P" pathological myopia."""
    from palm_cls.data.synthetic import draw_fundus

    img, _ = draw_fundus(kind, np.random.default_rng(seed), size=2 * SIZE)
    return cv2.resize(img, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def explain(img, run):
    """Return AlexNet's probability for an image, and the image under its heat map, uint8 BGR like `img`."""
    from palm_cls import build_model, grad_cam, load, overlay, transform_img

    import paddle

    model = build_model("alexnet")
    load(Path(run, "best.pdparams"), model)
    model.eval()
    batch = transform_img(img)[None]
    with paddle.no_grad():
        probability = 1 / (1 + np.exp(-float(model(paddle.to_tensor(batch)).numpy().item())))
    return probability, overlay(img, grad_cam(model, batch[0]))


def write_panels(path, panels):
    """Write pictures side by side, black around them; panels: [(uint8 BGR [SIZE, SIZE, 3], caption), ...]."""
    from matplotlib.figure import Figure

    width, height = (SIZE + GAP) * len(panels) + GAP, SIZE + 2 * GAP + CAPTION
    figure = Figure((width / 100, height / 100), facecolor="black")
    for column, (img, caption) in enumerate(panels):
        left = GAP + column * (SIZE + GAP)
        axis = figure.add_axes((left / width, (CAPTION + GAP) / height, SIZE / width, SIZE / height))
        axis.imshow(img[:, :, ::-1])  # BGR -> RGB
        axis.axis("off")
        figure.text((left + SIZE / 2) / width, 12 / height, caption, color="white", ha="center", fontsize=11)
    figure.savefig(path, dpi=100, facecolor="black")
    shrink(path)


def draw_curves(path, runs):
    """Draw loss and accuracy on the validation images of all RUNS as SVG."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    matplotlib.rcParams["svg.hashsalt"] = "palm_cls"  # the same picture gives the same file
    figure = Figure((9, 3.4), layout="constrained", facecolor="white")
    axes = figure.subplots(1, 2)
    for name, label in RUNS.items():
        with open(Path(runs, name, "log.csv"), encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        epochs = [int(row["epoch"]) for row in rows]
        for axis, key in zip(axes, ("valid_loss", "valid_accuracy")):
            axis.plot(epochs, [float(row[key]) for row in rows], "o-", color=COLORS[name], label=label)
    for axis, title in zip(axes, ("validation loss", "validation accuracy")):
        axis.set_title(title, color=INK)
        axis.set_xlabel("epoch", color=INK)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].set_ylim(0.4, 1.02)
    axes[1].legend(loc="center right", frameon=False)
    figure.suptitle("trained on 200 drawn eyes, measured on 100 others (the demo set)", color=INK, fontsize=11)
    figure.savefig(path, metadata={"Date": None})


def photograph_report(path, report):
    """Write the top of a report, as chromium shows it, as PNG."""
    sys.path.insert(0, str(PROJECT / "tests"))
    from helpers.browser import browsing

    width, height = REPORT_SIZE
    profile = tempfile.mkdtemp()
    try:
        with browsing(profile) as tab:
            tab.open(Path(report).resolve().as_uri(), width)
            tab.wait("document.readyState === 'complete'")
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            shot = tab.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
    finally:
        shutil.rmtree(profile, ignore_errors=True)  # the browser's processes may still be writing there
    path.write_bytes(base64.b64decode(shot["data"]))
    shrink(path)


def shrink(path):
    """Write a PNG file again with a palette of 256 colors."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, kmeans=8, dither=Image.Dither.FLOYDSTEINBERG)
    small.save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", metavar="DIR", help="directory of the runs (default: a temporary one)")
    args = parser.parse_args()
    sys.path.insert(0, str(PROJECT))
    import palm_cls  # noqa: F401  (before matplotlib and paddle)

    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        runs = Path(args.runs or Path(directory, "runs"))
        train_missing(runs, Path(directory, "demo"))
        for name in RUNS:
            settings = json.loads(Path(runs, name, "settings.json").read_text(encoding="utf-8"))
            if not settings["demo"]:
                sys.exit(f"{runs / name}: trained on photographs, which must not be shown; give other --runs")
        ill = draw_eye("P", ILL)
        probability, heat = explain(ill, runs / "alexnet")
        eyes = [(draw_eye("N", NORMAL), "normal"), (ill, "pathological myopia")]
        write_panels(IMAGES / "eyes.png", eyes)
        caption = f"AlexNet's heat map (probability {probability:.2f})"
        write_panels(IMAGES / "heatmap.png", [(ill, "a drawn eye with pathological myopia"), (heat, caption)])
        draw_curves(IMAGES / "curves.svg", runs)
        photograph_report(IMAGES / "report.png", runs / "alexnet" / "report.html")


if __name__ == "__main__":
    main()
