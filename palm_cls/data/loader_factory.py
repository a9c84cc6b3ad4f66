"""Make the loaders of a recipe: photographs from files, MNIST in memory."""

from palm_cls.core.errors import InputError, shorten
from palm_cls.data.array_loader import ArrayLoader
from palm_cls.data.augment import EIGHT_VIEWS, TEN_CROP
from palm_cls.data.images import INPUT_SPEC
from palm_cls.data.labels import CLASSES
from palm_cls.data.mnist import find_mnist
from palm_cls.data.options import DataOptions
from palm_cls.data.photos import check_photos, find_photos, is_undivided, photo_loader

FOR_PHOTOS = ("train_csv", "valid_csv", "valid_fraction", "positive", "skip_bad")  # DataOptions


def make_loaders(recipe, options=None, cache=True, download=False):
    """Make the loaders that a recipe is trained with.

    Args:
        recipe: a Recipe.
        options: DataOptions; default: the images where the recipe's usually are.
        cache: for photographs, as for `data_loader`.
        download: fetch the files of MNIST or Fashion-MNIST that are missing.

    Returns:
        (training loader, validation loader, dataset); the dataset is a Dataset, a ClassFolders, a DataRoot or a
        MnistDataset, with `root`, `is_demo` and `disclaimer`.

    Raises:
        InputError: The data is missing or damaged, or an option is not for this data.
    """
    dataset, options = _find_data(recipe, options, download)
    settings = options, recipe.batch_size, cache, True
    loaders = [_make_loader(recipe, dataset, split, *settings) for split in ("train", "valid")]
    check_photos(dataset, dict(zip(("training", "validation"), loaders)))
    _set_training(recipe, loaders[0])
    return (*loaders, dataset)


def make_train_loader(recipe, options=None, cache=True, download=False):
    """Make a loader of all training images, (loader, dataset); as `make_loaders`.

    If the photographs are not divided into training and validation images, it has all of them.
    """
    dataset, options = _find_data(recipe, options, download)
    loader = _make_loader(recipe, dataset, "all", options, recipe.batch_size, cache)
    check_photos(dataset, {"training": loader})
    _set_training(recipe, loader)
    return loader, dataset


def make_valid_loader(recipe, options=None, batch_size=10, cache=True, download=False, views=1, split="valid"):
    """Make the loader of the images that a recipe is evaluated on.

    Args:
        recipe, options, cache, download: as for `make_loaders`.
        batch_size: number of images of a batch.
        views: of each image: 1; of photographs also 8 or 10, see `palm_cls.data.augment.eight_views`, `ten_crops`.
        split: "valid", or "test" for the test images, which some data sets have; "other" for a data set that was not
            trained on: its validation images, or all if it is not divided.

    Returns:
        (loader, dataset).

    Raises:
        InputError: as `make_loaders`.
    """
    dataset, options = _find_data(recipe, options, download)
    if views not in (1, EIGHT_VIEWS, TEN_CROP):
        raise InputError(f"{views} views of an image: expected 1, {EIGHT_VIEWS} or {TEN_CROP}")
    if views > 1 and recipe.dataset != "palm":
        option = "--ten-crop" if views == TEN_CROP else "--views"
        raise InputError(f"{option} is for photographs, not for {recipe.dataset}")
    if split == "other":
        split = "all" if recipe.dataset == "palm" and is_undivided(dataset, options) else "valid"
    loader = _make_loader(recipe, dataset, split, options, batch_size, cache)
    check_photos(dataset, {"test" if split == "test" else "validation": loader})
    loader.mode, loader.views, loader.shuffle = "valid", views, False
    return loader, dataset


def _find_data(recipe, options, download):
    """Return (dataset, options with the names of the classes)."""
    options = options or DataOptions()
    if recipe.dataset == "palm":
        if download:
            raise InputError(
                "--download fetches MNIST and Fashion-MNIST; data/README.md says how to get the fundus images"
            )
        return find_photos(options)
    for name in FOR_PHOTOS:
        if getattr(options, name):
            raise InputError(f"--{name.replace('_', '-')} is for photographs, not for {recipe.dataset}")
    dataset = find_mnist(recipe.dataset, options.data, download)
    if options.classes not in (None, dataset.classes):
        raise InputError(f"--classes is for photographs, not for {recipe.dataset}")
    return dataset, options


def _make_loader(recipe, dataset, split, options, batch_size, cache, write=False):
    if recipe.dataset == "palm":
        loader = photo_loader(dataset, split, options, batch_size, cache, write)
    else:
        split = "train" if split in ("train", "all") else "test"
        loader = ArrayLoader(dataset.root, *dataset.read(split), batch_size, dataset.classes)
    loader.pixel_range, loader.image_size = recipe.pixel_range, recipe.image_size
    return loader


def _set_training(recipe, loader):
    """Set the order and the augmentation of a training loader."""
    if recipe.augmentation and recipe.dataset != "palm":
        raise InputError(f"--augment is for photographs, not for {recipe.dataset}")
    loader.shuffle, loader.augmentation = recipe.shuffle, recipe.augmentation


def palm_loaders(dataset, batch_size=10, train_csv=None, skip_bad=False, cache=True):
    """Make the loaders of a Dataset, (training, validation), see `palm_train_loader`."""
    train_loader = palm_train_loader(dataset, batch_size, train_csv, skip_bad, cache)
    return train_loader, palm_valid_loader(dataset, batch_size, cache)


def palm_train_loader(dataset, batch_size=10, train_csv=None, skip_bad=False, cache=True):
    """Make the shuffled loader of a Dataset's training images.

    Args:
        dataset: a Dataset.
        train_csv: table of the labels; default: the dataset's own, else the names of the images.
        batch_size, skip_bad, cache: as for `data_loader`.
    """
    options = DataOptions(train_csv=train_csv, skip_bad=skip_bad, classes=CLASSES)
    return photo_loader(dataset, "train", options, batch_size, cache)


def palm_valid_loader(dataset, batch_size=10, cache=True):
    """Make the loader of a Dataset's validation images, in the order of their table."""
    return photo_loader(dataset, "valid", DataOptions(classes=CLASSES), batch_size, cache)


def input_spec(recipe):
    """Return the input of a Recipe's network, a dict as `palm_cls.data.images.INPUT_SPEC`."""
    spec = INPUT_SPEC if recipe.dataset == "palm" else ArrayLoader.input_spec
    return {**spec, "size": recipe.image_size, "range": list(recipe.pixel_range)}


def check_input_spec(path, stored, expected):
    """Raise InputError unless a network takes the images that this program prepares for it."""
    if stored != expected:
        raise InputError(f"{path}: takes images as {shorten(stored)}; this program prepares them as {expected}")
