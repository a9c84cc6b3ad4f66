"""Make the loaders of a recipe: fundus images from files, MNIST in memory."""

from palm_cls.core.errors import InputError, shorten
from palm_cls.data.array_loader import ArrayLoader
from palm_cls.data.augment import EIGHT_VIEWS, TEN_CROP
from palm_cls.data.images import INPUT_SPEC
from palm_cls.data.loaders import data_loader, valid_data_loader
from palm_cls.data.mnist import find_mnist
from palm_cls.data.palm import find_dataset


def make_loaders(recipe, data=None, train_csv=None, skip_bad=False, cache=True, download=False):
    """Make the loaders that a recipe is trained with.

    Args:
        recipe: a Recipe.
        data: directory of the data set; default: a usual place of the recipe's.
        train_csv, skip_bad, cache: for fundus images, as in `palm_train_loader`.
        download: fetch the files of MNIST or Fashion-MNIST that are missing.

    Returns:
        (training loader, validation loader, Dataset or MnistDataset).

    Raises:
        InputError: The data is missing or damaged, or an option is not for this data.
    """
    train_loader, dataset = make_train_loader(recipe, data, train_csv, skip_bad, cache, download)
    return train_loader, _valid_loader(recipe, dataset, recipe.batch_size, cache), dataset


def make_train_loader(recipe, data=None, train_csv=None, skip_bad=False, cache=True, download=False):
    """Make the training loader alone: (loader, dataset); arguments and errors are those of `make_loaders`."""
    dataset = _find_data(recipe, data, download)
    if recipe.dataset == "palm":
        train_loader = palm_train_loader(dataset, recipe.batch_size, train_csv, skip_bad, cache)
    elif train_csv or skip_bad:
        option = "--train-csv" if train_csv else "--skip-bad"
        raise InputError(f"{option} is for fundus images, not for {recipe.dataset}")
    else:
        train_loader = _mnist_loader(dataset, "train", recipe.batch_size)
    if recipe.augmentation and recipe.dataset != "palm":
        raise InputError(f"--augment is for fundus images, not for {recipe.dataset}")
    train_loader.shuffle, train_loader.pixel_range = recipe.shuffle, recipe.pixel_range
    train_loader.augmentation = recipe.augmentation
    train_loader.image_size = recipe.image_size
    return train_loader, dataset


def make_valid_loader(recipe, data=None, batch_size=10, cache=True, download=False, views=1):
    """Make the loader of the images that a recipe is evaluated on.

    Args:
        recipe, data, cache, download: as for `make_loaders`.
        batch_size: number of images of a batch.
        views: of each image: 1; of fundus images also 8 or 10, see `palm_cls.data.augment.eight_views`, `ten_crops`.

    Returns:
        (validation loader, Dataset or MnistDataset).

    Raises:
        InputError: as `make_loaders`.
    """
    dataset = _find_data(recipe, data, download)
    if views not in (1, EIGHT_VIEWS, TEN_CROP):
        raise InputError(f"{views} views of an image: expected 1, {EIGHT_VIEWS} or {TEN_CROP}")
    if views > 1 and recipe.dataset != "palm":
        option = "--ten-crop" if views == TEN_CROP else "--views"
        raise InputError(f"{option} is for fundus images, not for {recipe.dataset}")
    loader = _valid_loader(recipe, dataset, batch_size, cache)
    loader.views = views
    return loader, dataset


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
    table = train_csv or dataset.train_labels
    if table:
        return valid_data_loader(dataset.train_images, table, batch_size, "train", skip_bad, cache)
    return data_loader(dataset.train_images, batch_size, "train", skip_bad, cache)


def palm_valid_loader(dataset, batch_size=10, cache=True):
    """Make the loader of a Dataset's validation images, in the order of their table."""
    return valid_data_loader(dataset.valid_images, dataset.valid_labels, batch_size, cache=cache)


def input_spec(recipe):
    """Return the input of a Recipe's network, a dict as `palm_cls.data.images.INPUT_SPEC`."""
    spec = INPUT_SPEC if recipe.dataset == "palm" else ArrayLoader.input_spec
    return {**spec, "size": recipe.image_size, "range": list(recipe.pixel_range)}


def check_input_spec(path, stored, expected):
    """Raise InputError unless a network takes the images that this program prepares for it."""
    if stored != expected:
        raise InputError(f"{path}: takes images as {shorten(stored)}; this program prepares them as {expected}")


def _find_data(recipe, directory, download):
    if recipe.dataset != "palm":
        return find_mnist(recipe.dataset, directory, download)
    if download:
        raise InputError("--download fetches MNIST and Fashion-MNIST; data/README.md says how to get the fundus images")
    return find_dataset(directory)


def _valid_loader(recipe, dataset, batch_size, cache):
    palm = recipe.dataset == "palm"
    loader = palm_valid_loader(dataset, batch_size, cache) if palm else _mnist_loader(dataset, "test", batch_size)
    loader.pixel_range, loader.image_size = recipe.pixel_range, recipe.image_size
    return loader


def _mnist_loader(dataset, split, batch_size):
    return ArrayLoader(dataset.root, *dataset.read(split), batch_size, dataset.classes)
