"""Images within the pages that are written here: made small, and held by the page itself."""

import base64

import cv2


def thumbnail(photo, side):
    """uint8 BGR, its longer side `side` pixels; a small image is enlarged by whole pixels, not blurred."""
    height, width = photo.shape[:2]
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST)


def img_tag(img, text):
    """An <img> that holds its file. img: uint8 BGR; text: for those who cannot see it, escaped."""
    content = cv2.imencode(".jpg", img, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    height, width = img.shape[:2]
    source = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    return f'<img src="{source}" width={width} height={height} alt="{text}">'
