"""Training images varied at random, so that a network sees each a little different in every epoch.

Three ways, by the names that `tools/train.py --augment` takes:

- "lesson": what the lesson proposes to try: translation, scaling, cropping, rotation, flipping, brightness;
- "paper": what AlexNet was trained with (Krizhevsky et al., NIPS 2012, section 4.1): a random crop of 224 of the 256
  pixels, mirrored or not, and a disturbance of the colours along their principal components;
- "strong": what the recipe "palm" is trained with: turned by any angle, for an eye has no upright, shifted, scaled,
  mirrored, brighter or darker, tinted, with more contrast or less.

All that is random follows from (seed, epoch, name of the image) alone: it is the same whatever the number of threads
or the order of the images, and after an interruption.
"""

import functools
import zlib

import cv2
import numpy as np

from palm_cls.data.images import DEFAULT_LUT, IMAGE_SIZE, normalize

TURN, SHIFT, ZOOM = 15, 0.1, 0.1  # degrees, share of the side, and share of the size, at most to either way
SMALLEST_CROP = 0.85  # share of the side
BRIGHTNESS = 0.2  # at most so much brighter or darker, as a share
PAPER_SIZE = 256  # pixels, of which AlexNet saw IMAGE_SIZE
COLOUR_DEVIATION = 0.1  # of the paper's Gaussian

STRONG_SHIFT, STRONG_ZOOM, CONTRAST, TINT = 0.08, (0.9, 1.15), 0.2, 0.12  # the last: of each colour by itself

SIDES = {
    "lesson": IMAGE_SIZE,
    "paper": PAPER_SIZE,
    "strong": IMAGE_SIZE,
}  # {name: pixels to which images are resized before}


def build_augmentation(name, images):
    """The function (img uint8 [side, side, 3], rng) -> uint8 [224, 224, 3] of a way, by its name.

    images: a function that gives the training images one after another, resized to SIDES[name]; called for "paper".
    """
    if name == "lesson":
        return augment_lesson
    if name == "strong":
        return augment_strong
    return functools.partial(augment_paper, components=color_pca(images()))


def sample_rng(seed, epoch, name):
    """The numpy Generator from which an image's variant is drawn. name: of its file."""
    return np.random.default_rng([seed, epoch, zlib.crc32(name.encode("utf-8", "surrogatepass"))])


def augment_lesson(img, rng):
    """A variant of an image, uint8 [side, side, 3]: turned, shifted, scaled, cropped, mirrored, brighter or darker."""
    from paddle.vision.transforms import functional as F

    img = _moved(img, rng.uniform(-TURN, TURN), rng.uniform(-SHIFT, SHIFT, 2), rng.uniform(1 - ZOOM, 1 + ZOOM))
    img = _cropped(img, rng.uniform(SMALLEST_CROP, 1), rng.random(2))
    if rng.random() < 0.5:
        img = F.hflip(img)
    return F.adjust_brightness(np.ascontiguousarray(img), rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS))


def _moved(img, angle, shift, zoom):
    """Turned and scaled about the centre, then shifted, in one interpolation; black comes in, as around the eye.

    Not paddle's `affine`, which for arrays forgets the centre where it sets the shift, and turns about a corner.
    """
    side = len(img)
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), angle, zoom)
    matrix[:, 2] += shift * side
    return cv2.warpAffine(img, matrix, (side, side), flags=cv2.INTER_LINEAR)


def _cropped(img, share, place):
    """A square of `share` of the side, at `place` (two numbers from 0 to 1), at the full size again."""
    side = len(img)
    part = round(side * share)
    top, left = (int(number * (side - part + 1)) for number in place)
    return cv2.resize(img[top : top + part, left : left + part], (side, side))


def augment_strong(img, rng):
    """A variant of an image, uint8 [side, side, 3]: turned by any angle, and else as the head of this module says."""
    shift = rng.uniform(-STRONG_SHIFT, STRONG_SHIFT, 2)
    img = _moved(img, rng.uniform(-180, 180), shift, rng.uniform(*STRONG_ZOOM))
    if rng.random() < 0.5:
        img = img[:, ::-1]
    factors = rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS) * rng.uniform(1 - TINT, 1 + TINT, 3)
    img = img * factors.astype("float32")
    mean, contrast = img.mean(), rng.uniform(1 - CONTRAST, 1 + CONTRAST)
    return np.clip(np.rint((img - mean) * contrast + mean), 0, 255).astype("uint8")


def augment_paper(img, rng, components):
    """A variant of an image, uint8 [256, 256, 3] -> uint8 [224, 224, 3]; components: as `color_pca` gives."""
    top, left = rng.integers(0, PAPER_SIZE - IMAGE_SIZE, 2, endpoint=True)
    img = img[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
    if rng.random() < 0.5:
        img = img[:, ::-1]
    colour = components @ rng.normal(0, COLOUR_DEVIATION, 3)  # the same for all pixels
    return np.clip(np.rint(img + 255 * colour), 0, 255).astype("uint8")


def color_pca(images):
    """The principal components of the colours of images, each as long as its eigenvalue: float64 [3, 3], in columns.

    images: an iterable of uint8 [height, width, 3]. Eigenvalues and eigenvectors are those of the covariance matrix of
    all their pixels, with values from 0 to 1.
    """
    count, total, squares = 0, np.zeros(3), np.zeros((3, 3))
    for img in images:
        pixels = img.reshape(-1, 3).astype("float64") / 255
        count += len(pixels)
        total += pixels.sum(axis=0)
        squares += pixels.T @ pixels
    mean = total / count
    eigenvalues, eigenvectors = np.linalg.eigh(squares / count - np.outer(mean, mean))
    signs = np.where(eigenvectors.sum(axis=0) < 0, -1, 1)  # else LAPACK's choice, another on another machine
    return eigenvectors * signs * eigenvalues


def ten_crops(img, table=DEFAULT_LUT):
    """An image as AlexNet was tested on it: four corners and centre, and these mirrored; float32 [10, 3, 224, 224].

    img: uint8 [side, side, 3], side from 224 on (256 in the paper); table: as `scale` takes it.
    """
    far = len(img) - IMAGE_SIZE
    corners = ((0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2))
    crops = [img[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE] for top, left in corners]
    return np.stack(
        [normalize(np.ascontiguousarray(crop), table=table) for crop in (*crops, *(crop[:, ::-1] for crop in crops))]
    )
