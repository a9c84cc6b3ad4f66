import json

import cv2
import numpy as np
import pytest
from helpers import tiny  # noqa: F401  the recipe
from helpers.files import write_set
from helpers.processes import assert_refused
from hypothesis import given
from hypothesis import strategies as st

from palm_cls.checkpoints.weights import save
from palm_cls.core import environment
from palm_cls.core.errors import InputError
from palm_cls.data import augment
from palm_cls.data.augment import (
    augment_lesson,
    augment_paper,
    augment_strong,
    color_pca,
    eight_views,
    sample_rng,
    ten_crops,
)
from palm_cls.data.images import normalize, resize, transform_img
from palm_cls.data.loader_factory import make_loaders, make_valid_loader, palm_train_loader
from palm_cls.data.options import DataOptions
from palm_cls.data.palm import find_dataset
from palm_cls.data.pipeline import augmented_samples
from palm_cls.data.samples import digits_figure
from palm_cls.eval.engine import predict
from palm_cls.eval.evaluate import predict_all
from palm_cls.recipes import build_model, find_recipe
from palm_cls.training.experiment import resume_recipe, train_recipe


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
    return augment_lesson(img, rng).astype(int)


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
    plain = augment_paper(img, Scripted((3, 32), 1, np.zeros(3)), components)
    assert (plain == img[3:227, 32:]).all()
    mirrored = augment_paper(img, Scripted((0, 0), 0, np.zeros(3)), components)
    assert (mirrored == img[:224, 223::-1]).all()
    redder = augment_paper(img, Scripted((0, 0), 1, np.array([9, 9, 0.1])), components).astype(int)
    expected = img[:224, :224].astype(int)
    expected[:, :, 2] = np.minimum(expected[:, :, 2] + 13, 255)  # 0.1 * 0.5 * 255 = 12.75, rounded
    assert (redder == expected).all()


def strong_variant(img, angle=0, shift=(0, 0), zoom=1, mirrored=False, brightness=1, tint=(1, 1, 1), contrast=1):
    rng = Scripted(np.array(shift), angle, zoom, 0 if mirrored else 1, brightness, np.array(tint), contrast)
    return augment_strong(img, rng).astype(int)


def test_each_part_of_the_strong_is_what_it_is_called():
    photo = picture(224)
    img = photo.astype(int)
    assert (strong_variant(photo) == img).all()
    assert (strong_variant(photo, mirrored=True) == img[:, ::-1]).all()
    assert (strong_variant(photo, angle=180) == img[::-1, ::-1]).all()
    assert (strong_variant(photo, shift=(0, 0.125))[28:] == img[:-28]).all()
    enlarged = cv2.resize(photo[56:168, 56:168], (224, 224)).astype(int)
    assert np.abs(strong_variant(photo, zoom=2) - enlarged)[30:-30, 30:-30].max() <= 12
    assert np.abs(strong_variant(photo, brightness=0.5) - img / 2).max() <= 0.5
    assert np.abs(strong_variant(photo, tint=(1, 1, 0.5)) - img * [1, 1, 0.5]).max() <= 0.5
    mean = img.mean()
    flatter = strong_variant(photo, brightness=0.5, contrast=0.5)
    assert np.abs(flatter - (mean / 2 + (img - mean) / 4)).max() <= 0.5
    assert strong_variant(photo, brightness=9).max() == 255  # not 9 * 255 less some 256


@given(st.integers(0, 2**32 - 1), st.integers(0, 500), st.text(max_size=20))
def test_a_variant_follows_from_seed_epoch_and_name(seed, epoch, name):
    draws = [sample_rng(*key).random() for key in ((seed, epoch, name), (seed, epoch, name), (seed, epoch + 1, name))]
    assert draws[0] == draws[1] != draws[2]
    assert sample_rng(seed, epoch, name + "x").random() != draws[0]


@given(st.integers(0, 10_000))
def test_variants_are_images(seed):
    rng = sample_rng(seed, 0, "N0001.jpg")
    first, second = augment_lesson(picture(224), rng), augment_paper(picture(256), rng, np.eye(3) * 0.1)
    for img in (first, second, augment_strong(picture(224), rng)):
        assert (img.shape, img.dtype) == ((224, 224, 3), np.uint8)


def test_what_is_drawn_is_as_large_as_it_says():
    """The ranges, from 2000 draws."""
    seen = []

    class Spy(Scripted):
        def uniform(self, low, high, size=None):
            seen.append((low, high))
            return np.zeros(size) if size else 1.0

    augment_lesson(picture(224), Spy(np.array(CENTRE), 1))
    assert seen == [(-15, 15), (-0.1, 0.1), (0.9, 1.1), (0.85, 1), (0.8, 1.2)]
    seen.clear()
    augment_strong(picture(224), Spy(1))
    assert seen == [(-0.08, 0.08), (-180, 180), (0.9, 1.15), (0.8, 1.2), (0.88, 1.12), (0.8, 1.2)]
    mirrored = [sample_rng(0, epoch, "a").random() < 0.5 for epoch in range(2000)]
    assert np.mean(mirrored) == pytest.approx(0.5, abs=0.05)


def test_principal_colours_are_those_of_the_covariance():
    images = [picture(20, seed) for seed in range(3)]
    pixels = np.concatenate([img.reshape(-1, 3) for img in images]) / 255
    components = color_pca(images)
    covariance = np.cov(pixels.T, bias=True)
    lengths = np.linalg.norm(components, axis=0)
    assert lengths == pytest.approx(np.linalg.eigvalsh(covariance))
    assert covariance @ components == pytest.approx(components * lengths)
    assert (components.sum(axis=0) >= 0).all()


def test_the_paper_disturbs_as_it_says():
    """The covariance of the disturbance is that of 0.1 * eigenvalue along each eigenvector."""
    components = color_pca([picture(20)]) * 20  # so large that rounding does not count
    grey = np.full((256, 256, 3), 128, "uint8")
    shifts = [augment_paper(grey, sample_rng(0, epoch, "a"), components)[0, 0] / 255 for epoch in range(1000)]
    expected = augment.COLOR_DEVIATION**2 * components @ components.T
    assert np.cov(np.array(shifts).T) == pytest.approx(expected, abs=0.15 * expected.max())


def test_ten_crops():
    img = picture(256)
    crops = ten_crops(img)
    assert (crops.shape, crops.dtype) == ((10, 3, 224, 224), np.float32)
    assert (crops[0] == normalize(img[:224, :224].copy())).all()
    assert (crops[3] == normalize(img[32:, 32:].copy())).all()
    assert (crops[4] == normalize(img[16:240, 16:240].copy())).all()
    assert (crops[5:] == crops[:5, :, :, ::-1]).all()


@pytest.fixture
def reader(small_demo):
    """A reader of the demo's training images that varies them in the lesson's way."""
    reader = palm_train_loader(find_dataset(small_demo), batch_size=6, cache=False)
    reader.augmentation = "lesson"
    return reader


def pictures(reader, batch=0):
    """{name: image} of the rest of an epoch."""
    names = reader.order[batch * reader.batch_size :]
    return dict(zip(names, np.concatenate([imgs for imgs, _ in reader.iter_from(batch)])))


@pytest.mark.parametrize("augmentation", ["lesson", "paper", "strong"])
def test_readers_vary_images_by_seed_and_epoch_whatever_the_order(reader, augmentation, monkeypatch):
    reader.augmentation = augmentation
    first = pictures(reader)
    assert all(img.shape == (3, 224, 224) for img in first.values())
    reader.order = reader.order[::-1]
    monkeypatch.setattr(environment, "available_cores", lambda: 1)
    again = pictures(reader)
    assert all((again[name] == img).all() for name, img in first.items())
    for what in ("seed", "epoch"):
        setattr(reader, what, getattr(reader, what) + 1)
        other = pictures(reader)
        assert not any((other[name] == img).all() for name, img in first.items())
    (shown,) = augmented_samples(reader, reader.order[3], [reader.epoch])
    assert (normalize(shown) == other[reader.order[3]]).all()


@pytest.mark.slow
def test_a_reader_can_change_its_way(reader):
    first = pictures(reader)
    reader.augmentation = "paper"
    assert not any((pictures(reader)[name] == img).all() for name, img in first.items())
    reader.augmentation = "lesson"
    assert all((pictures(reader)[name] == img).all() for name, img in first.items())


def test_each_epoch_is_another_and_the_rest_of_one_is_its_own(reader):
    whole = [np.concatenate([imgs for imgs, _ in reader()]) for _ in range(2)]
    assert reader.epoch == 2
    reader.epoch = 1
    assert (np.concatenate([imgs for imgs, _ in reader.iter_from(2)]) == whole[1][12:]).all()


def test_a_resumed_run_sees_the_same_variants(small_demo, tmp_path, monkeypatch):
    options = {"data": small_demo, "augmentation": "lesson", "report": False, "device": "cpu"}
    whole = train_recipe("tiny", epochs=3, output=tmp_path / "whole", **options)
    train_recipe("tiny", epochs=1, output=tmp_path / "part", **options)
    part = resume_recipe(tmp_path / "part", epochs=3, report=False)
    assert part.history == whole.history
    assert (
        train_recipe("tiny", epochs=1, output=tmp_path / "plain", **{**options, "augmentation": None}).history
        != (whole.history[:1])
    )
    with pytest.raises(InputError, match="its augmentation is lesson, not paper"):
        resume_recipe(tmp_path / "part", augmentation="paper")


def test_the_probabilities_of_ten_views_are_averaged(small_demo):
    model = build_model("lenet-relu")
    loader, _ = make_valid_loader(find_recipe("lenet-relu"), DataOptions(small_demo), cache=False, views=10)
    found = predict_all(model, loader)
    views = ten_crops(resize(loader.load_image(loader.order[7]), 256))
    probabilities = 1 / (1 + np.exp(-predict(model, views).astype("float64")))
    assert 1 / (1 + np.exp(-found.logits[7, 0])) == pytest.approx(probabilities.mean(), abs=1e-6)
    assert found.logits.shape == (10, 1)


def test_eight_views():
    """The turns and mirror images of a pattern without symmetry: all different, and each a view of the others."""
    img = np.random.default_rng(0).integers(0, 256, (224, 224, 3), "uint8")
    views = eight_views(img)
    assert (views.shape, views.dtype) == ((8, 3, 224, 224), "float32")
    photos = [img, cv2.rotate(img, cv2.ROTATE_90_COUNTERCLOCKWISE), cv2.rotate(img, cv2.ROTATE_180)]
    photos.append(cv2.rotate(img, cv2.ROTATE_90_CLOCKWISE))
    for view, photo in zip(views, [*photos, *(cv2.flip(photo, 1) for photo in photos)]):
        np.testing.assert_array_equal(view, normalize(photo))
    assert len({view.tobytes() for view in views}) == 8
    np.testing.assert_array_equal(eight_views(img, size=112)[0], transform_img(img, 112))


def test_the_loader_yields_them_for_a_network_of_any_size(small_demo):
    for size in (224, 112):
        recipe = find_recipe("palm", size)
        loader, _ = make_valid_loader(recipe, DataOptions(small_demo), cache=False, views=8)
        imgs, _ = next(loader())
        assert imgs.shape == (10, 8, 3, size, size)
        np.testing.assert_array_equal(imgs[3, 0], loader.load_input(loader.order[3]))
        loader.views = 1
        plain, _ = next(loader())
        np.testing.assert_array_equal(plain, imgs[:, 0])


@pytest.mark.parametrize("angle", [0, 90, 30])
def test_the_strong_goes_to_112_pixels_in_one_step(angle):
    """As warping at 224 pixels and taking the mean of each 2 x 2."""
    y, x = np.mgrid[:224, :224]
    img = np.stack([x / 2 + y / 4, 112 + x / 2 - y / 4, 60 + x / 4 + y / 4], axis=-1)
    img = np.where((x - 111.5) ** 2 + (y - 111.5) ** 2 < 100**2, img.T, 0).T.round().astype("uint8")
    large, small = (augment._affine(img, angle, np.array([0.05, -0.03]), 1.1, size) for size in (224, 112))
    mean = large.reshape(112, 2, 112, 2, 3).mean(axis=(1, 3))
    inside = cv2.erode((mean.min(axis=2) > 0).astype("uint8"), np.ones((7, 7)), borderValue=0) > 0
    assert inside.sum() > 5000
    difference = (small - mean)[inside]
    assert abs(difference).max() < 1.5
    np.testing.assert_allclose(difference.mean(axis=0), 0, atol=0.1)  # a quarter of a pixel more makes it 0.34


def test_every_augmentation_takes_a_network_of_112_pixels(small_demo):
    for name in augment.RESIZE_SIZE:
        recipe = find_recipe("palm", augmentation=name, batch_size=4)
        train_loader, _, _ = make_loaders(recipe, DataOptions(small_demo), cache=False)
        assert next(train_loader())[0].shape == (4, 3, 112, 112)


@pytest.mark.slow
def test_the_tools(tool, small_demo, tmp_path):
    done = tool("show_images", "--augment", "lesson", "--data", small_demo, "--output", tmp_path / "a.png")
    assert (done.returncode, done.stdout) == (0, f"figure: {tmp_path / 'a.png'}\n")
    assert cv2.imread(str(tmp_path / "a.png")).std() > 30
    save(tmp_path / "relu", build_model("lenet-relu"))
    weights = ("--weights", tmp_path / "relu.pdparams", "--model", "lenet-relu")
    done = tool("evaluate", *weights, "--data", small_demo, "--ten-crop")
    assert done.returncode == 0, done.stderr
    assert "10 of 10 images, 10 views of each (demo set" in done.stdout
    assert json.loads((tmp_path / "relu.evaluation.json").read_text())["ten_crop"] is True


@pytest.mark.slow
def test_digits_have_neither(tool, tmp_path):
    write_set(tmp_path)
    with pytest.raises(InputError, match="--ten-crop is for photographs, not for mnist"):
        make_valid_loader(find_recipe("lenet-mnist"), DataOptions(tmp_path), views=10)
    with pytest.raises(InputError, match="--views is for photographs, not for mnist"):
        make_valid_loader(find_recipe("lenet-mnist"), DataOptions(tmp_path), views=8)
    done = tool("train", "--model", "lenet-mnist", "--data", tmp_path, "--augment", "lesson", cwd=tmp_path)
    assert_refused(done, "--augment is for photographs, not for mnist")


def test_digits_with_their_labels(tmp_path):
    write_set(tmp_path)
    model = build_model("lenet-mnist")
    reader, _ = make_valid_loader(find_recipe("lenet-mnist"), DataOptions(tmp_path))
    called = predict_all(model, reader).logits.argmax(axis=1)
    figure = digits_figure(reader, called[:9])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [f"{label}, called {number}" for label, number in zip(reader.labels[:9], called)]
    assert [axis.get_title() for axis in digits_figure(reader).axes] == [str(label) for label in reader.labels[:9]]


@pytest.mark.slow
def test_the_tool_draws_digits(tool, tool_here, tmp_path):
    write_set(tmp_path)
    save(tmp_path / "run", build_model("lenet-mnist"), metadata={"model": "lenet-mnist"})
    options = ("--weights", tmp_path / "run.pdparams", "--data", tmp_path, "--output", tmp_path / "a.png")
    done = tool("show_images", *options)
    assert (done.returncode, done.stdout) == (0, f"figure: {tmp_path / 'a.png'}\n")
    assert_refused(
        tool_here("show_images", *options, "--dataset", "fashion-mnist"), "not weights of a network for fashion"
    )
