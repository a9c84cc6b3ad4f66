"""Images embedded in HTML pages."""

import base64

import cv2


def thumbnail(photo, size):
    """Resize a photo so that its longer side has `size` pixels; small images are enlarged without blur.

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
