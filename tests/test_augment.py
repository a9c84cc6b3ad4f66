import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palm_cls import augment
from palm_cls.augment import generator, principal_colours, ten_crops, vary_as_lesson, vary_as_paper
from palm_cls.images import scale


def picture(side, seed=0):
    """uint8 [side, side, 3], smooth, and the same nowhere."""
    return cv2.resize(np.random.default_rng(seed).integers(0, 256, (7, 7, 3), "uint8"), (side, side))


class Scripted:
    """A generator that gives what it is told, in this order, whatever is asked."""

    def __init__(self, *answers):
        self.answers = iter(answers)

    def answer(self, *_, **__):
        return next(self.answers)

    uniform = random = normal = integers = answer


CENTRE = (0.5, 0.5)


def lesson_variant(img, angle=0, shift=(0, 0), zoom=1, crop=1, mirrored=False, brightness=1):
    rng = Scripted(angle, np.array(shift), zoom, crop, CENTRE, 0 if mirrored else 1, brightness)
    return vary_as_lesson(img, rng).astype(int)


def test_nothing_of_it_all_is_the_image():
    img = picture(224)
    assert (lesson_variant(img) == img).all()


def test_each_part_of_the_lessons_is_what_it_is_called():
    img = picture(224).astype(int)
    photo = img.astype("uint8")
    inner = slice(30, -30)
    assert (lesson_variant(photo, mirrored=True) == img[:, ::-1]).all()
    assert (lesson_variant(photo, shift=(0.125, 0))[:, 28:] == img[:, :-28]).all()  # to the right
    assert (lesson_variant(photo, shift=(0.125, 0))[:, :28] == 0).all()  # and black comes in
    assert (lesson_variant(photo, shift=(0, 0.125))[28:] == img[:-28]).all()
    assert (lesson_variant(photo, angle=90) == np.rot90(img)).all()  # about the centre, counter-clockwise
    darker = lesson_variant(photo, brightness=0.5)
    assert np.abs(darker - img / 2).max() <= 1
    larger = lesson_variant(photo, zoom=2)
    assert np.abs(larger[inner, inner] - cv2.resize(photo[56:168, 56:168], (224, 224))[inner, inner]).max() <= 12
    part = lesson_variant(photo, crop=0.5)
    assert np.abs(part - cv2.resize(photo[56:168, 56:168], (224, 224)).astype(int)).max() == 0


def test_each_part_of_the_papers_is_what_it_is_called():
    img = picture(256)
    components = np.diag([0.0, 0.0, 0.5])
    plain = vary_as_paper(img, Scripted((3, 32), 1, np.zeros(3)), components)
    assert (plain == img[3:227, 32:]).all()
    mirrored = vary_as_paper(img, Scripted((0, 0), 0, np.zeros(3)), components)
    assert (mirrored == img[:224, 223::-1]).all()
    redder = vary_as_paper(img, Scripted((0, 0), 1, np.array([9, 9, 0.1])), components).astype(int)
    expected = img[:224, :224].astype(int)
    expected[:, :, 2] = np.minimum(expected[:, :, 2] + 13, 255)  # 0.1 * 0.5 * 255 = 12.75, rounded
    assert (redder == expected).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 500), st.text(max_size=20))
def test_a_variant_follows_from_seed_epoch_and_name(seed, epoch, name):
    draws = [generator(*key).random() for key in ((seed, epoch, name), (seed, epoch, name), (seed, epoch + 1, name))]
    assert draws[0] == draws[1] != draws[2]
    assert generator(seed, epoch, name + "x").random() != draws[0]


@given(st.integers(0, 10_000))
def test_variants_are_images(seed):
    rng = generator(seed, 0, "N0001.jpg")
    first, second = vary_as_lesson(picture(224), rng), vary_as_paper(picture(256), rng, np.eye(3) * 0.1)
    for img in (first, second):
        assert (img.shape, img.dtype) == ((224, 224, 3), np.uint8)


def test_what_is_drawn_is_as_large_as_it_says():
    """The ranges, from 2000 draws."""
    seen = []

    class Spy(Scripted):
        def uniform(self, low, high, size=None):
            seen.append((low, high))
            return np.zeros(2) if size else 1.0

    vary_as_lesson(picture(224), Spy(np.array(CENTRE), 1))
    assert seen == [(-15, 15), (-0.1, 0.1), (0.9, 1.1), (0.85, 1), (0.8, 1.2)]
    mirrored = [generator(0, epoch, "a").random() < 0.5 for epoch in range(2000)]
    assert np.mean(mirrored) == pytest.approx(0.5, abs=0.05)


def test_principal_colours_are_those_of_the_covariance():
    images = [picture(20, seed) for seed in range(3)]
    pixels = np.concatenate([img.reshape(-1, 3) for img in images]) / 255
    components = principal_colours(images)
    covariance = np.cov(pixels.T, bias=True)
    lengths = np.linalg.norm(components, axis=0)
    assert lengths == pytest.approx(np.linalg.eigvalsh(covariance))
    assert covariance @ components == pytest.approx(components * lengths)
    assert (components.sum(axis=0) >= 0).all()


def test_the_paper_disturbs_as_it_says():
    """The covariance of the disturbance is that of 0.1 * eigenvalue along each eigenvector."""
    components = principal_colours([picture(20)]) * 20  # so large that rounding does not count
    grey = np.full((256, 256, 3), 128, "uint8")
    shifts = [vary_as_paper(grey, generator(0, epoch, "a"), components)[0, 0] / 255 for epoch in range(1000)]
    expected = augment.COLOUR_DEVIATION**2 * components @ components.T
    assert np.cov(np.array(shifts).T) == pytest.approx(expected, abs=0.15 * expected.max())


def test_ten_crops():
    img = picture(256)
    crops = ten_crops(img)
    assert (crops.shape, crops.dtype) == ((10, 3, 224, 224), np.float32)
    assert (crops[0] == scale(img[:224, :224].copy())).all()
    assert (crops[3] == scale(img[32:, 32:].copy())).all()
    assert (crops[4] == scale(img[16:240, 16:240].copy())).all()
    assert (crops[5:] == crops[:5, :, :, ::-1]).all()
