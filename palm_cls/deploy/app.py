"""A page to try a network: `serve_page`. It shows probability and heat map of photographs, and keeps none of them.

Gradio, an optional package, serves the page; the cards with the results are made here. They are in English and
Chinese, the language of the course; Gradio's own texts are in the browser's language.
"""

import contextlib
import dataclasses
import os
import secrets
import shutil
import tempfile
import time
from html import escape
from pathlib import Path

from palm_cls.checkpoints.file_checks import is_export
from palm_cls.core.console import DEMO_WARNING, DISCLAIMER, log
from palm_cls.core.errors import InputError, RunError, missing_package_error, shorten
from palm_cls.core.html import img_tag, thumbnail
from palm_cls.data.images import read_image, transform_img
from palm_cls.data.labels import CLASSES
from palm_cls.deploy.predict import find_classes, input_size, load_model, predict_images
from palm_cls.eval.gradcam import grad_cam, overlay
from palm_cls.eval.metrics import check_threshold

GRADIO = "gradio>=6.31,<7"  # for pip; earlier versions load a script from another site
MAX_FILES = 20  # at once
MAX_MEGABYTES = 20  # of a file; photographs of 50 million pixels are JPEGs of up to 15 MB
DISPLAY_SIZE = 480  # pixels, the longer side of a photograph on the page
MAX_SHOWN = 5  # whose probabilities a card shows, the largest first
MAX_UPLOAD_AGE = 600  # seconds after which nobody waits for an uploaded file any more

TRANSLATIONS = {
    DISCLAIMER: "这是教学用的模型，不是医疗器械。",
    DEMO_WARNING: "它的权重由演示集（绘制的图像）训练而来，其预测不说明任何关于真实眼睛的问题。",
    CLASSES[0]: "非病理性近视",
    CLASSES[1]: "病理性近视",
}
# Applies a threshold to the cards on the page: each holds the label and the heat map of both answers.
MOVE_THRESHOLD = """(threshold) => {
  for (const card of document.querySelectorAll(".palm-card[data-probability]")) {
    card.classList.toggle("positive", Number(card.dataset.probability) > threshold)
    card.style.setProperty("--threshold", threshold)
  }
}"""


def serve_page(weights, name=None, threshold=0.5, host=None, port=None):
    """Serve the page until interrupted, as `tools/app.py` does, and print its address.

    Uploads go to a directory that no other user may read. Each is deleted after its prediction, and the directory when
    the page ends.

    Args:
        weights: As for `load_model`, but no export.
        name: The recipe, if the weights do not name it.
        threshold: Of the probability, 0..1, where the page's slider begins; of two classes only.
        host: Address to listen on; by default Gradio's GRADIO_SERVER_NAME, else this machine alone (127.0.0.1).
        port: Port to listen on; by default Gradio's GRADIO_SERVER_PORT, else the first free one from 7860.

    Raises:
        InputError: Gradio, the weights or the threshold cannot be used.
        RunError: The address or the port cannot be used.
    """
    if is_export(weights):
        raise InputError(f"{weights}: exported, and gives no heat maps; take the weights it was made from")
    folder = tempfile.mkdtemp(prefix="palm_cls-")  # of mode 700
    try:
        gradio = _import_gradio(folder)
        model, metadata = load_model(weights, name)
        classes = find_classes(weights, metadata)
        check_threshold(len(classes), threshold)
        log(DISCLAIMER)
        if metadata.get("demo"):
            log(DEMO_WARNING)
        page = _build_page(gradio, model, {"model": name, **metadata, "classes": classes}, threshold)
        try:
            _launch(gradio, page, host, port)
            print(f"The page is at {page.local_url} until you press Ctrl-C.")
            while True:
                time.sleep(1)  # no longer: a signal that another thread receives does not end it
                delete_stale(folder, time.time() - MAX_UPLOAD_AGE)
        finally:
            page.close(verbose=False)
    finally:
        with contextlib.suppress(OSError):  # on Windows, if a file in it is open
            os.rename(folder, f"{folder}-")  # so that a running prediction writes nothing there any more
        for path in (f"{folder}-", folder):
            shutil.rmtree(path, ignore_errors=True)


def _import_gradio(folder):
    """Import Gradio, set up to keep uploads in `folder` and to send no statistics."""
    os.environ.update(GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False")
    os.environ.update(no_proxy="*", NO_PROXY="*")  # it requests its own page only; SOCKS would need a package
    install = f'python -m pip install "{GRADIO}" (Python 3.10 or newer)'
    try:
        import gradio
        from gradio import route_utils
    except Exception as error:  # also of a package that it needs and that does not fit
        raise missing_package_error("gradio", error, install) from error
    if not [6, 31] <= [int(number) for number in gradio.__version__.split(".")[:2]] < [7]:
        raise InputError(f"gradio {gradio.__version__} does not fit this page: {install}")
    route_utils.GradioUploadFile = _unique_upload_class(route_utils.GradioUploadFile)
    return gradio


def _unique_upload_class(base):
    """Subclass Gradio's class of uploads so that each goes into a directory of its own.

    Gradio names the directory by the content: two users with the same photograph would lose it together.
    """

    class UniqueUpload(base):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.sha.update(secrets.token_bytes(16))

    return UniqueUpload


def _launch(gradio, page, host, port):
    try:
        page.launch(
            server_name=host,
            server_port=port,
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"]),  # Gradio's own lack letters in bold
            max_file_size=f"{MAX_MEGABYTES}mb",
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


def _build_page(gradio, model, metadata, threshold):
    classes = metadata["classes"]

    def answer(files, threshold=0.5):
        paths = [Path(file) for file in files or []]
        try:
            return None, render_cards(model, paths, float(threshold), classes)
        finally:
            delete_uploads(paths)

    with gradio.Blocks(title=f"palm_cls: {metadata['model']}") as page:
        gradio.HTML(_render_header(metadata))
        limits = f"≤ {MAX_FILES}, each 每张 ≤ {MAX_MEGABYTES} MB"
        label = f"Photographs {_photograph(classes)[1]}: {limits}"
        files = gradio.File(label=label, file_count="multiple", height=160)
        sliders = [_add_slider(gradio, threshold, classes[1])] if len(classes) == 2 else []
        results = gradio.HTML(min_height=120)  # room for Gradio's sign of progress
        uploaded = files.upload(
            answer,
            [files, *sliders],
            [files, results],
            show_progress_on=results,
            concurrency_limit=1,
            api_visibility="private",
        )
        for slider in sliders:
            uploaded.then(None, slider, None, js=MOVE_THRESHOLD)  # it may have been moved meanwhile
            slider.change(None, slider, None, js=MOVE_THRESHOLD)
    return page


def _add_slider(gradio, threshold, positive):
    above = f"above it 高于阈值: {' '.join(_translations(positive))}"
    return gradio.Slider(0, 1, threshold, step=0.001, label="Threshold 阈值", info=above)


def _render_header(metadata):
    model, lines = escape(metadata["model"]), [DISCLAIMER, *([DEMO_WARNING] if metadata.get("demo") else [])]
    photograph, chinese = _photograph(metadata["classes"])
    return f"""<h1>What {model} sees in a {photograph}</h1>
<p>{model} 如何看{chinese}</p>
<div class=palm-plain>{"".join(f"<p>{_bilingual(line)}</p>" for line in lines)}</div>
<p>Your photographs go to the computer that serves this page, and are deleted there as soon as they are predicted.
<span lang=zh>照片只会传到提供本页面的计算机，预测后立即删除。</span></p>
"""


def _photograph(classes):
    """Return what the photographs are called, in English and Chinese: only those of the lesson are known."""
    return ("fundus photograph", "眼底照片") if classes == CLASSES else ("photograph", "照片")


def _translations(text):
    """Return [text], or [text, Chinese] if there is a translation."""
    text = shorten(text)
    return [text, *([TRANSLATIONS[text]] if text in TRANSLATIONS else [])]


def _bilingual(text):
    """Return a text and its translation as HTML."""
    english, *chinese = map(escape, _translations(text))
    return " ".join([english, *(f"<span lang=zh>{words}</span>" for words in chinese)])


def render_cards(model, paths, threshold, classes=CLASSES):
    """Predict photographs and render a card for each, with the heat maps of both answers.

    The card of three or more classes has the heat map of the predicted one.

    Args:
        model: The network, as `load_model` returns it.
        paths: Paths of the photographs; those after the first MAX_FILES are skipped.
        threshold: Of the probability, 0..1; of two classes only.
        classes: Names of the classes.

    Returns:
        HTML, a str.
    """
    predictions = predict_images(model, paths[:MAX_FILES], threshold=threshold)
    rendered = "".join(_render_card(model, prediction, threshold, classes) for prediction in predictions)
    num_skipped = len(paths) - MAX_FILES
    skipped = f"""<p class=palm-plain>Not looked at: {num_skipped}. Give at most {MAX_FILES} at a time.
<span lang=zh>未处理：{num_skipped} 张。每次最多 {MAX_FILES} 张。</span></p>
"""
    return f"""{skipped if num_skipped > 0 else ""}
<p>Red marks the regions that support the network's answer most (Grad-CAM).
<span lang=zh>红色处为网络作出判断的主要依据（Grad-CAM）。</span></p>
<div class=palm-cards>{rendered}</div>
"""


def _render_card(model, prediction, threshold, classes):
    try:
        photo = None if prediction.error else read_image(prediction.path)
    except InputError as error:
        prediction = dataclasses.replace(prediction, error=str(error))
    name = f"<h2>{escape(shorten(prediction.path.name))}</h2>"
    if prediction.error:
        error = prediction.error.removeprefix(f"{prediction.path}: ")  # the server's path is of no use to the visitor
        return f"<article class='palm-card bad'>{name}<p>Not predicted 未能预测: {escape(error)}</p></article>\n"
    if len(classes) > 2:
        return _render_card_of_several(model, photo, prediction, name, classes)
    labels = {" class=no": 0, " class=yes": 1}
    pictures = _render_images(model, photo, labels, classes)
    answers = "".join(
        f"<p class='answer {answer}'>{_bilingual(label)}</p>" for answer, label in zip(("no", "yes"), classes)
    )
    probability = prediction.probability
    return f"""<article class='palm-card{" positive" if prediction.label else ""}' data-probability={probability!r}
 style='--probability:{probability!r};--threshold:{threshold!r}'>
<div class=pair>{pictures}</div>{name}{answers}
<p>{_bilingual(classes[1])}: probability 概率 <b>{probability:.4f}</b></p>
<div class=bar><i></i><b></b></div></article>
"""


def _render_card_of_several(model, photo, prediction, name, classes):
    """Render the card of a network with three or more classes: the probabilities in place of a threshold."""
    largest = sorted(zip(prediction.probabilities, classes), key=lambda pair: -pair[0])[:MAX_SHOWN]
    bars = "".join(
        f"""<li style='--probability:{probability!r}'><span>{_bilingual(label)}</span> <b>{probability:.4f}</b>
<div class=bar><i></i></div></li>"""
        for probability, label in largest
    )
    num_more = len(classes) - len(largest)
    more = f"<p>Classes not shown 未显示的类别: {num_more}</p>" if num_more else ""
    return f"""<article class='palm-card'>
<div class=pair>{_render_images(model, photo, {"": prediction.label}, classes)}</div>{name}
<p class=answer>{_bilingual(classes[prediction.label])}</p><p>Probabilities 概率</p>
<ol>{bars}</ol>{more}</article>
"""


def _render_images(model, photo, labels, classes):
    """Render a photograph and heat maps as figures; `labels` are {attribute of the figure: the label explained}."""
    small, img = thumbnail(photo, DISPLAY_SIZE), transform_img(photo, input_size(model))
    figures = [f"<figure>{img_tag(small, 'The photograph 照片')}</figure>"]
    for attribute, label in labels.items():
        alt = escape(f"Heat map 热力图: {' '.join(_translations(classes[label]))}")
        tag = img_tag(overlay(small, grad_cam(model, img, label=label)), alt)
        figures.append(f"<figure{attribute}>{tag}</figure>")
    return "".join(figures)


def delete_uploads(paths):
    """Delete uploads, each with its directory if that is empty then."""
    for path in paths:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def delete_stale(folder, before):
    """Delete the files and empty directories in `folder` that are older than a time.

    These are interrupted uploads, those whose page was closed before their prediction, and empty files of Gradio's.

    Args:
        folder: The directory.
        before: Seconds since the epoch.
    """
    for path in sorted(Path(folder).rglob("*"), reverse=True):  # the contents of a directory before the directory
        with contextlib.suppress(OSError):  # deleted meanwhile, or a directory that is not empty
            if path.stat().st_mtime < before:
                path.rmdir() if path.is_dir() else path.unlink()
