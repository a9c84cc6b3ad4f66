"""HTML pages: their templates, and images embedded in them."""

import base64
from html import escape

import cv2

from palm_cls.core.errors import missing_package_error


def thumbnail(photo, size):
    """Resize a photo to `size` pixels on its longer side; enlarge without blur.

    Args:
        photo: uint8 BGR [height, width, 3].
        size: pixels.

    Returns:
        uint8 BGR.
    """
    height, width = photo.shape[:2]
    factor = size / max(height, width)
    shape = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(photo, shape, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST)


def img_tag(img, text):
    """Return an <img> element with the image in it as JPEG.

    Args:
        img: uint8 BGR.
        text: alternative text, HTML-escaped.
    """
    content = cv2.imencode(".jpg", img, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    height, width = img.shape[:2]
    source = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    return f'<img src="{source}" width={width} height={height} alt="{text}">'


def load_template(path):
    """Load the jinja2 template of a page, which escapes all text that it is given.

    Args:
        path: Path of the template, beside which those lie that it includes.

    Raises:
        InputError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise missing_package_error("jinja2", error, "python -m pip install jinja2") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["image"] = lambda img, text: img_tag(img, escape(text))
    return environment.get_template(path.name)
