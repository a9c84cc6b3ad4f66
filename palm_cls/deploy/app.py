"""A page to try a network on: photographs dropped there get their probability and a heat map, and none of them is kept.

Gradio, an optional package, serves it; the cards that tell the answers are made here. They speak English and Chinese,
the language of the course; Gradio's own words are in the browser's language.
"""

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from html import escape
from pathlib import Path

from palm_cls.checkpoints.weights import is_export
from palm_cls.core.console import DEMO_WARNING, DISCLAIMER, log
from palm_cls.core.errors import InputError, RunError, missing_package_error, shorten
from palm_cls.core.html import img_tag, thumbnail
from palm_cls.data.images import read_image, transform_img
from palm_cls.data.labels import CLASSES
from palm_cls.deploy.predict import load_model, predict_images
from palm_cls.eval.assess import class_names
from palm_cls.eval.gradcam import grad_cam, overlay

GRADIO = "gradio>=6.31,<7"  # what pip is told to install; earlier ones fetch a script from elsewhere
MOST_FILES = 20  # at once
MOST_MEGABYTES = 20  # of a file; photographs of 50 million pixels are JPEGs of up to 15 MB
SIDE = 480  # pixels, the longer side of a photograph on the page
STALE = 600  # seconds after which nobody waits for an uploaded file any more

CHINESE = {
    DISCLAIMER: "这是教学用的模型，不是医疗器械。",
    DEMO_WARNING: "它的权重由演示集（绘制的图像）训练而来，其预测不说明任何关于真实眼睛的问题。",
    CLASSES[0]: "非病理性近视",
    CLASSES[1]: "病理性近视",
}
# Moves the threshold on the cards that are there: label and heat map of either answer lie in each of them.
MOVE_THRESHOLD = """(threshold) => {
  for (const card of document.querySelectorAll(".palm-card[data-probability]")) {
    card.classList.toggle("positive", Number(card.dataset.probability) > threshold)
    card.style.setProperty("--threshold", threshold)
  }
}"""


def serve_page(weights, name=None, threshold=0.5, host=None, port=None):
    """Serve the page until interrupted, as `tools/app.py` does; prints its address.

    weights, name: as for `load_model`, but not exported; threshold: of the probability, where the page begins;
    host, port: to listen on, by default this machine alone (127.0.0.1) and the first free port from 7860, or what
    Gradio's GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say. What is sent to the page lies in a directory that nobody
    else may read, each file until it is predicted, and the directory goes with the page. Raises InputError where Gradio
    or the weights cannot be used, RunError where nothing can listen there.
    """
    if is_export(weights):
        raise InputError(f"{weights}: exported, and gives no heat maps; take the weights it was made from")
    folder = tempfile.mkdtemp(prefix="palm_cls-")  # of mode 700
    try:
        gradio = _import_gradio(folder)
        model, about = load_model(weights, name)
        log(DISCLAIMER)
        if about.get("demo"):
            log(DEMO_WARNING)
        page = _blocks(gradio, model, {"model": name, **about}, threshold)
        try:
            _launch(gradio, page, host, port)
            print(f"The page is at {page.local_url} until you press Ctrl-C.")
            while True:
                time.sleep(1)  # and not longer: a signal that another thread receives does not end it
                sweep(folder, time.time() - STALE)
        finally:
            page.close(verbose=False)
    finally:
        with contextlib.suppress(OSError):  # on Windows, where a file in it is open
            os.rename(folder, f"{folder}-")  # a prediction that is under way writes nothing there any more
        for path in (f"{folder}-", folder):
            shutil.rmtree(path, ignore_errors=True)


def _import_gradio(folder):
    """Gradio, which keeps what it is sent in `folder` and tells nobody about it."""
    os.environ.update(GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False")
    os.environ.update(no_proxy="*", NO_PROXY="*")  # it asks its own page only; SOCKS would need a package
    install = f'python -m pip install "{GRADIO}" (Python 3.10 or newer)'
    try:
        import gradio
        from gradio import route_utils
    except Exception as error:  # also a package that it needs and that does not fit
        raise missing_package_error("gradio", error, install) from error
    if not [6, 31] <= [int(number) for number in gradio.__version__.split(".")[:2]] < [7]:
        raise InputError(f"gradio {gradio.__version__} is another one than this page is made for: {install}")
    route_utils.GradioUploadFile = _own_upload(route_utils.GradioUploadFile)
    return gradio


def _own_upload(base):
    """Gradio's class of uploads, but each goes into a directory of its own.

    Gradio's own is named by the content: whoever sends the same photograph as somebody else would lose it with them.
    """

    class OwnUpload(base):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.sha.update(secrets.token_bytes(16))

    return OwnUpload


def _launch(gradio, page, host, port):
    try:
        page.launch(
            server_name=host,
            server_port=port,
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"]),  # Gradio's own lack letters in bold
            max_file_size=f"{MOST_MEGABYTES}mb",
            css_paths=Path(__file__).with_name("page.css"),
            footer_links=[],
            share=False,
            inline=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        where = " ".join(f"--{name} {value}" for name, value in (("host", host), ("port", port)) if value)
        raise RunError(f"{where or 'any port from 7860'}: cannot listen there; something else may already") from error


def _blocks(gradio, model, about, threshold):
    """The page as Gradio has it. gradio: the module; model, about: of `load_model`."""
    classes = class_names(about, 1) or CLASSES

    def answer(files, threshold):
        paths = [Path(file) for file in files or []]
        try:
            return None, cards(model, paths, float(threshold), classes)
        finally:
            forget(paths)

    with gradio.Blocks(title=f"palm_cls: {about['model']}") as page:
        gradio.HTML(_head(about))
        limits = f"≤ {MOST_FILES}, each 每张 ≤ {MOST_MEGABYTES} MB"
        files = gradio.File(label=f"Photographs 眼底照片: {limits}", file_count="multiple", height=160)
        above = f"above it 高于阈值: {' '.join(_both(classes[1]))}"
        slider = gradio.Slider(0, 1, threshold, step=0.001, label="Threshold 阈值", info=above)
        shown = gradio.HTML(min_height=120)  # room to tell that it is being predicted
        uploaded = files.upload(
            answer,
            [files, slider],
            [files, shown],
            show_progress_on=shown,
            concurrency_limit=1,
            api_visibility="private",
        )
        uploaded.then(None, slider, None, js=MOVE_THRESHOLD)  # it may have been moved meanwhile
        slider.change(None, slider, None, js=MOVE_THRESHOLD)
    return page


def _head(about):
    model, lines = escape(about["model"]), [DISCLAIMER, *([DEMO_WARNING] if about.get("demo") else [])]
    return f"""<h1>What {model} sees in a fundus photograph</h1>
<p>{model} 如何看眼底照片</p>
<div class=palm-plain>{"".join(f"<p>{_words(line)}</p>" for line in lines)}</div>
<p>Your photographs go to the computer that this page comes from, and are deleted there as soon as they are predicted.
<span lang=zh>照片只会传到提供本页面的计算机，预测后立即删除。</span></p>
"""


def _both(text):
    """A text and its Chinese, where there is one: a list of one or two str."""
    text = shorten(text)
    return [text, *([CHINESE[text]] if text in CHINESE else [])]


def _words(text):
    """`_both` as HTML."""
    english, *chinese = map(escape, _both(text))
    return " ".join([english, *(f"<span lang=zh>{words}</span>" for words in chinese)])


def cards(model, paths, threshold, classes=CLASSES):
    """What the network says of photographs, as HTML: a card each, with both heat maps of those that can be read.

    paths: of the files, of which no more than MOST_FILES are looked at; classes: the names of the labels.
    """
    found = predict_images(model, paths[:MOST_FILES], threshold=threshold)
    shown = "".join(_card(model, prediction, threshold, classes) for prediction in found)
    left = len(paths) - MOST_FILES
    more = f"""<p class=palm-plain>Not looked at: {left}. Give at most {MOST_FILES} at a time.
<span lang=zh>未处理：{left} 张。每次最多 {MOST_FILES} 张。</span></p>
"""
    return f"""{more if left > 0 else ""}<p>Red is where the network finds what speaks most for its answer (Grad-CAM).
<span lang=zh>红色处为网络作出判断的主要依据（Grad-CAM）。</span></p>
<div class=palm-cards>{shown}</div>
"""


def _card(model, prediction, threshold, classes):
    try:
        photo = None if prediction.error else read_image(prediction.path)
    except InputError as error:
        prediction = prediction._replace(error=str(error))
    name = f"<h2>{escape(shorten(prediction.path.name))}</h2>"
    if prediction.error:
        error = prediction.error.removeprefix(f"{prediction.path}: ")  # the path is the server's own affair
        return f"<article class='palm-card bad'>{name}<p>Not predicted 未能预测: {escape(error)}</p></article>\n"
    pictures = "".join(f"<figure{side}>{tag}</figure>" for side, tag in _pictures(model, photo, classes))
    answers = "".join(f"<p class='answer {side}'>{_words(words)}</p>" for side, words in zip(("no", "yes"), classes))
    probability = prediction.probability
    return f"""<article class='palm-card{" positive" if prediction.label else ""}' data-probability={probability!r}
 style='--probability:{probability!r};--threshold:{threshold!r}'>
<div class=pair>{pictures}</div>{name}{answers}<p>{_words(classes[1])}: probability 概率 <b>{probability:.4f}</b></p>
<div class=bar><i></i><b></b></div></article>
"""


def _pictures(model, photo, classes):
    """(attribute, <img>) of a photograph and the heat maps of both answers, of which the page shows one."""
    small, img = thumbnail(photo, SIDE), transform_img(photo)
    yield "", img_tag(small, "The photograph 照片")
    for label, side in enumerate((" class=no", " class=yes")):
        words = escape(f"Heat map 热力图: {' '.join(_both(classes[label]))}")
        yield side, img_tag(overlay(small, grad_cam(model, img, label=label)), words)


def forget(paths):
    """Delete uploads, each with the directory that holds nothing else."""
    for path in paths:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def sweep(folder, before):
    """Delete the files and empty directories in `folder` that are older than a time.

    These are uploads broken off, or whose page was closed before they were predicted, and empty files of Gradio's.
    """
    for path in sorted(Path(folder).rglob("*"), reverse=True):  # what lies in a directory comes before it
        with contextlib.suppress(OSError):  # gone meanwhile, or a directory that is not empty
            if path.stat().st_mtime < before:
                path.rmdir() if path.is_dir() else path.unlink()
