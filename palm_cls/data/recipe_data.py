"""The loaders of a recipe: fundus images from a directory, or digits and garments from MNIST's files."""

from palm_cls.core.errors import InputError
from palm_cls.data.array_loader import ArrayLoader
from palm_cls.data.loaders import data_loader, valid_data_loader
from palm_cls.data.mnist import find_digits
from palm_cls.data.palm import find_dataset


def dataset_loaders(dataset, batch_size=10, train_csv=None, skip_bad=False, cache=True):
    """The two loaders of a Dataset: (training, validation).

    Training labels come from `train_csv`, else from the dataset's own table, else from the names of the images.
    `skip_bad` passes over training images that do not decode.
    """
    return train_loader_of(dataset, batch_size, train_csv, skip_bad, cache), valid_loader_of(dataset, batch_size, cache)


def train_loader_of(dataset, batch_size=10, train_csv=None, skip_bad=False, cache=True):
    """The shuffled loader of a Dataset's training images."""
    table = train_csv or dataset.train_labels
    if table:
        return valid_data_loader(dataset.train_images, table, batch_size, "train", skip_bad, cache)
    return data_loader(dataset.train_images, batch_size, "train", skip_bad, cache)


def valid_loader_of(dataset, batch_size=10, cache=True):
    """The loader of a Dataset's validation images, in the order of their table."""
    return valid_data_loader(dataset.valid_images, dataset.valid_labels, batch_size, cache=cache)


def make_loaders(recipe, data=None, train_csv=None, skip_bad=False, cache=True, download=False):
    """The loaders of a Recipe and where their images come from: (training, validation, Dataset or Digits).

    All that trains a recipe has its batches from here; `make_valid_loader` gives those that only measure. data:
    directory of the data set, else where that of the recipe usually lies. train_csv, skip_bad, cache: as
    `dataset_loaders` takes them, of fundus images. download: fetch the files of MNIST or Fashion-MNIST that are
    missing. Raises InputError for what is missing, damaged, or not for the recipe's data.
    """
    found = _find_data(recipe, data, download)
    if recipe.dataset == "palm":
        train_loader = train_loader_of(found, recipe.batch_size, train_csv, skip_bad, cache)
    elif train_csv or skip_bad:
        option = "--train-csv" if train_csv else "--skip-bad"
        raise InputError(f"{option} is for fundus images, not for {recipe.dataset}")
    else:
        train_loader = _array_loader(found, "train", recipe.batch_size)
    if recipe.augmentation and recipe.dataset != "palm":
        raise InputError(f"--augment is for fundus images, not for {recipe.dataset}")
    train_loader.shuffle, train_loader.pixel_range = recipe.shuffle, recipe.pixel_range
    train_loader.augmentation = recipe.augmentation
    return train_loader, _valid_loader(recipe, found, recipe.batch_size, cache), found


def make_valid_loader(recipe, data=None, batch_size=10, cache=True, download=False, ten_crop=False):
    """The loader of the images that a Recipe is measured on, and where they come from; see `make_loaders`.

    ten_crop: of ten views of each fundus image, see `BaseLoader`.
    """
    found = _find_data(recipe, data, download)
    if ten_crop and recipe.dataset != "palm":
        raise InputError(f"--ten-crop is for fundus images, not for {recipe.dataset}")
    loader = _valid_loader(recipe, found, batch_size, cache)
    loader.ten_crop = ten_crop
    return loader, found


def _find_data(recipe, directory, download):
    if recipe.dataset != "palm":
        return find_digits(recipe.dataset, directory, download)
    if download:
        raise InputError("--download fetches MNIST and Fashion-MNIST; data/README.md says how to get the fundus images")
    return find_dataset(directory)


def _valid_loader(recipe, found, batch_size, cache):
    palm = recipe.dataset == "palm"
    loader = valid_loader_of(found, batch_size, cache) if palm else _array_loader(found, "test", batch_size)
    loader.pixel_range = recipe.pixel_range
    return loader


def _array_loader(digits, part, batch_size):
    return ArrayLoader(digits.root, *digits.read(part), batch_size, digits.classes)
