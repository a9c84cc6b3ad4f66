"""Figures of sample images, drawn with matplotlib."""

from pathlib import Path

from palm_cls.core.console import log
from palm_cls.core.errors import InputError, shorten
from palm_cls.core.figures import cut_text, escape_text, import_pyplot, write_png
from palm_cls.data.image_files import image_names, labelled_images
from palm_cls.data.images import read_image
from palm_cls.data.labels import LABEL_BY_PREFIX
from palm_cls.data.loader_factory import palm_train_loader
from palm_cls.data.pipeline import augmented_samples

LESSON_EXAMPLES = ("N0012.jpg", "P0095.jpg")
EXAMPLES = 3  # images drawn of each class
MAX_CLASSES = 10  # drawn
TITLE_LENGTH = 30  # letters of a line above an image


def lesson_examples(dataset):
    """Return the paths of a normal training image and one with pathological myopia.

    They are those of the lesson, N0012.jpg and P0095.jpg, else the first of each class.

    Raises:
        InputError: A class has no image.
    """
    directory = dataset.train_images
    names = image_names(directory)
    if dataset.train_labels:
        rows = labelled_images(directory, dataset.train_labels)
        label_of = {path.name: row.label for path, row in rows.items()}
    else:
        label_of = {name: LABEL_BY_PREFIX.get(name[0]) for name in names}
    return tuple(directory / _example(directory, names, label_of, label) for label in (0, 1))


def _example(directory, names, label_of, label):
    candidates = [name for name in names if label_of.get(name) == label]
    if not candidates:
        raise InputError(f"{directory}: no image with label {label} to show")
    if LESSON_EXAMPLES[label] in candidates:
        return LESSON_EXAMPLES[label]
    return min(candidates, key=lambda name: name.startswith("H"))  # high myopia only if nothing is normal


def example_names(loader, number, count):
    """Return the names of up to `count` images of class `number`, from all over the sorted list of its names.

    Args:
        loader: An ImageLoader or an ArrayLoader.
        number, count: int.
    """
    names = sorted(name for name, label in zip(loader.order, loader.labels) if label == number)
    return names[:: max(1, len(names) // count)][:count]


def lesson_figure(dataset):
    """Draw a normal and a pathological image side by side, as the lesson does.

    Args:
        dataset: as `find_dataset` returns it.

    Returns:
        (figure, shapes): a figure of pyplot; {file name: (height, width, channels)} in the order drawn.

    Raises:
        InputError: A class has no image.
    """
    plt = import_pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(12, 7))
    shapes = {}
    for axis, path, title in zip(axes, lesson_examples(dataset), ("Normal", "Pathological myopia (PM)")):
        img = read_image(path)
        shapes[path.name] = img.shape
        axis.imshow(img[:, :, ::-1])  # BGR -> RGB
        axis.set_title(f"{title}\n{escape_text(path.name)}, shape {img.shape}", fontsize=14)
        axis.axis("off")
    if dataset.is_demo:
        figure.text(0.5, 0.14, dataset.disclaimer, ha="center", fontsize=12)
    return figure, shapes


def classes_figure(dataset, loader):
    """Draw some images of each class, a row for each of the first MAX_CLASSES.

    Args:
        dataset: as `find_photos` returns it.
        loader: an ImageLoader of its images.

    Returns:
        A figure of pyplot.
    """
    plt = import_pyplot()
    classes = loader.classes[:MAX_CLASSES]
    if len(classes) < len(loader.classes):
        log(f"{dataset.root}: {len(loader.classes)} classes; the first {MAX_CLASSES} are drawn.")
    figsize = 3 * EXAMPLES, 3.3 * len(classes)
    figure, axes = plt.subplots(len(classes), EXAMPLES, figsize=figsize, layout="constrained", squeeze=False)
    for number, row in enumerate(axes):
        for axis, name in zip(row, example_names(loader, number, EXAMPLES)):
            axis.imshow(loader.load_image(name)[:, :, ::-1])  # BGR -> RGB
            axis.set_title(_title(classes[number], name), fontsize=10)
        for axis in row:
            axis.axis("off")
    if dataset.is_demo:
        figure.suptitle(dataset.disclaimer)
    return figure


def _title(class_name, name):
    """Return the class and the file of an image in two lines."""
    return "\n".join(cut_text(text, TITLE_LENGTH) for text in (class_name, Path(name).name))


def augmentation_figure(dataset, augmentation, loader=None):
    """Draw a training image and its augmentation in eleven epochs.

    Args:
        dataset: as `find_photos` returns it.
        augmentation: one of `palm_cls.recipes.AUGMENTATIONS`.
        loader: an ImageLoader of its images, of whose last class one is drawn; default: the lesson's pathological image
            of a Dataset.

    Raises:
        InputError: The class has no image.
    """
    plt = import_pyplot()
    if loader is None:
        loader, name = palm_train_loader(dataset), lesson_examples(dataset)[1].name
        title = escape_text(name)
    elif names := example_names(loader, len(loader.classes) - 1, 1):
        (name,) = names
        title = _title(loader.classes[-1], name)
    else:
        raise InputError(f"{loader.directory}: no image of class {shorten(loader.classes[-1])} to show")
    loader.augmentation = augmentation
    titles = [title, *(f"epoch {epoch}" for epoch in range(11))]
    pictures = [loader.load_image(name), *augmented_samples(loader, name, range(11))]
    figure, axes = plt.subplots(3, 4, figsize=(11, 9), layout="constrained")
    for axis, title, img in zip(axes.flat, titles, pictures):
        axis.imshow(img[:, :, ::-1])  # BGR -> RGB
        axis.set_title(title)
        axis.axis("off")
    figure.suptitle(f"--augment {augmentation} {dataset.disclaimer}".rstrip())
    return figure


def digits_figure(loader, predicted=None):
    """Draw the first nine images of an ArrayLoader, titled with their labels.

    Args:
        loader: the ArrayLoader.
        predicted: the predicted labels, int [9], to add to the titles.
    """
    plt = import_pyplot()
    names, labels, classes = loader.order[:9], loader.labels[:9], loader.classes
    titles, correct = [classes[label] for label in labels], [True] * 9
    if predicted is not None:
        titles = [f"{title}, called {classes[number]}" for title, number in zip(titles, predicted)]
        correct = [label == number for label, number in zip(labels, predicted)]
    figure, axes = plt.subplots(3, 3, figsize=(9, 9), layout="constrained")
    for axis, name, title, is_correct in zip(axes.flat, names, titles, correct):
        axis.imshow(loader.load_image(name))
        axis.set_title(title, color="black" if is_correct else "#d55e00")
        axis.axis("off")
    return figure


def show_or_write(figure, path=None):
    """Write a figure as PNG, or show it on a screen without `path`.

    Args:
        figure: of pyplot.
        path: the file to write, atomically; directories are made. Without a screen the default is output/images.png.

    Returns:
        The path written, or None.

    Raises:
        InputError: The path does not end in .png.
    """
    plt = import_pyplot()
    on_screen = getattr(figure.canvas, "required_interactive_framework", None)  # "tk", "qt", ...; None: PNG only
    if path is None and on_screen:
        plt.show()
        return None
    path = Path(path or "output/images.png")
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: not the name of a .png file to write")
    write_png(figure, path, dpi=120, bbox_inches="tight")
    return path
