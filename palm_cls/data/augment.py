"""Data augmentation: training images varied at random, differently in every epoch.

- "lesson": what the lesson proposes to try: translation, scaling, cropping, rotation, flipping, brightness;
- "paper": what AlexNet was trained with (Krizhevsky et al., NIPS 2012, section 4.1): a random crop of 224 of the 256
  pixels, a flip, and a shift of the colours along their principal components;
- "strong": what the recipe "palm" is trained with: rotation by any angle, for an eye has no upright, translation,
  scaling, flipping, brightness, tint, contrast.

All random numbers follow from (seed, epoch, name of the image): they are the same whatever the number of threads or the
order of the images, and after an interruption.
"""

import functools
import zlib

import cv2
import numpy as np

from palm_cls.data.images import DEFAULT_LUT, IMAGE_SIZE, normalize, shrink

MAX_ROTATION, MAX_SHIFT, MAX_SCALE = 15, 0.1, 0.1  # degrees, share of the size, share, to either side
MIN_CROP = 0.85  # share of the size
BRIGHTNESS = 0.2  # share, at most, to either side
PAPER_SIZE = 256  # pixels, of which AlexNet gets IMAGE_SIZE
COLOR_DEVIATION = 0.1  # of the paper's Gaussian

STRONG_SHIFT, STRONG_SCALE, CONTRAST, TINT = 0.08, (0.9, 1.15), 0.2, 0.12  # the last: of each colour by itself

EIGHT_VIEWS, TEN_CROP = 8, 10  # numbers of views, see `eight_views` and `ten_crops`
RESIZE_SIZE = {"lesson": IMAGE_SIZE, "paper": PAPER_SIZE, "strong": IMAGE_SIZE}  # pixels, before augmentation


def build_augmentation(name, images, size=IMAGE_SIZE):
    """Return the augmentation of that name.

    Args:
        name: "lesson", "paper" or "strong".
        images: a function that returns an iterable of the training images, resized to RESIZE_SIZE[name]; called for
            "paper".
        size: pixels of the network's input.

    Returns:
        A function (img uint8 [height, width, 3], rng) -> uint8 [size, size, 3].
    """
    if name == "strong":
        return functools.partial(augment_strong, size=size)
    vary = augment_lesson if name == "lesson" else functools.partial(augment_paper, components=color_pca(images()))
    return lambda img, rng: shrink(vary(img, rng), size)


def sample_rng(seed, epoch, name):
    """Return the numpy Generator for an image, by the name of its file."""
    return np.random.default_rng([seed, epoch, zlib.crc32(name.encode("utf-8", "surrogatepass"))])


def augment_lesson(img, rng):
    """Rotate, shift, scale, crop, flip and brighten an image, uint8 [size, size, 3]."""
    from paddle.vision.transforms import functional as F

    angle, shift = rng.uniform(-MAX_ROTATION, MAX_ROTATION), rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2)
    img = _affine(img, angle, shift, rng.uniform(1 - MAX_SCALE, 1 + MAX_SCALE))
    img = _crop(img, rng.uniform(MIN_CROP, 1), rng.random(2))
    if rng.random() < 0.5:
        img = F.hflip(img)
    return F.adjust_brightness(np.ascontiguousarray(img), rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS))


def _affine(img, angle, shift, scale, size=None):
    """Rotate and scale about the centre, shift, and resize to `size`, in one interpolation; black comes in at the rim.

    Not paddle's `affine`, which for arrays rotates about a corner if there is a shift.
    """
    height, size = len(img), size or len(img)
    matrix = cv2.getRotationMatrix2D(((height - 1) / 2, (height - 1) / 2), angle, scale)
    matrix[:, 2] += shift * height
    factor = size / height
    matrix = matrix * factor
    matrix[:, 2] += (factor - 1) / 2  # the centre of a pixel is at a whole number
    return cv2.warpAffine(img, matrix, (size, size), flags=cv2.INTER_LINEAR)


def _crop(img, share, place):
    """Crop a square of `share` of the size, at `place` (two numbers from 0 to 1), and resize it to the full size."""
    size = len(img)
    part = round(size * share)
    top, left = (int(number * (size - part + 1)) for number in place)
    return cv2.resize(img[top : top + part, left : left + part], (size, size))


def augment_strong(img, rng, size=None):
    """Rotate, shift, scale and flip an image; vary its brightness, tint and contrast: uint8 [size, size, 3]."""
    shift = rng.uniform(-STRONG_SHIFT, STRONG_SHIFT, 2)
    img = _affine(img, rng.uniform(-180, 180), shift, rng.uniform(*STRONG_SCALE), size)
    if rng.random() < 0.5:
        img = img[:, ::-1]
    factors = rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS) * rng.uniform(1 - TINT, 1 + TINT, 3)
    img = img * factors.astype("float32")
    mean, contrast = img.mean(), rng.uniform(1 - CONTRAST, 1 + CONTRAST)
    return np.clip(np.rint((img - mean) * contrast + mean), 0, 255).astype("uint8")


def augment_paper(img, rng, components):
    """Crop, flip and shift the colours along `components`, as `color_pca` returns them.

    uint8 [256, 256, 3] -> uint8 [224, 224, 3].
    """
    top, left = rng.integers(0, PAPER_SIZE - IMAGE_SIZE, 2, endpoint=True)
    img = img[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
    if rng.random() < 0.5:
        img = img[:, ::-1]
    color = components @ rng.normal(0, COLOR_DEVIATION, 3)  # the same for all pixels
    return np.clip(np.rint(img + 255 * color), 0, 255).astype("uint8")


def color_pca(images):
    """Compute the principal components of the colours of images, each as long as its eigenvalue.

    Args:
        images: an iterable of uint8 [height, width, 3].

    Returns:
        float64 [3, 3], components in columns, of the covariance matrix of all pixels, with values from 0 to 1.
    """
    count, total, squares = 0, np.zeros(3), np.zeros((3, 3))
    for img in images:
        pixels = img.reshape(-1, 3).astype("float64") / 255
        count += len(pixels)
        total += pixels.sum(axis=0)
        squares += pixels.T @ pixels
    mean = total / count
    eigenvalues, eigenvectors = np.linalg.eigh(squares / count - np.outer(mean, mean))
    signs = np.where(eigenvectors.sum(axis=0) < 0, -1, 1)  # else LAPACK's choice, which differs between machines
    return eigenvectors * signs * eigenvalues


def eight_views(img, table=DEFAULT_LUT, size=IMAGE_SIZE):
    """Turn an image by 0, 90, 180 and 270 degrees, and mirror each: an eye has no upright.

    Args:
        img: uint8 [224, 224, 3].
        table: a `pixel_lut`.
        size: pixels of the network's input.

    Returns:
        float32 [8, 3, size, size], the image as it is first.
    """
    return turns_and_mirrors(normalize(shrink(img, size), table=table))


def turns_and_mirrors(img):
    """The eight views of an image: float32 [channels, size, size] -> float32 [8, channels, size, size]."""
    turns = [np.rot90(img, quarter, axes=(1, 2)) for quarter in range(4)]
    return np.stack([*turns, *(turn[:, :, ::-1] for turn in turns)])


def ten_crops(img, table=DEFAULT_LUT, size=IMAGE_SIZE):
    """Crop the four corners and the centre, each also flipped, as AlexNet was tested.

    Args:
        img: uint8 [size, size, 3], size at least 224 (256 in the paper).
        table: a `pixel_lut`.
        size: pixels of the network's input.

    Returns:
        float32 [10, 3, size, size].
    """
    far = len(img) - IMAGE_SIZE
    corners = ((0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2))
    crops = [img[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE] for top, left in corners]
    views = (*crops, *(crop[:, ::-1] for crop in crops))
    return np.stack([normalize(shrink(np.ascontiguousarray(view), size), table=table) for view in views])
