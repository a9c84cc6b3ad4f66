"""Draw images of each class, augmented samples of an image, or digits with their labels.

python tools/show_images.py [--data DIR] [--output FIGURE.png]
python tools/show_images.py --augment lesson
python tools/show_images.py --dataset fashion-mnist [--weights output/lenet-fashion]
"""

from _cli import Parser, add_data_option, add_label_options, path, run

from palm_cls.core.errors import InputError
from palm_cls.data.options import DataOptions
from palm_cls.recipes import AUGMENTATIONS, RECIPES

DIGITS = ("mnist", "fashion-mnist")


def parse_args():
    parser = Parser(
        description="Draw the lesson's figure, a normal fundus image and one with pathological myopia, or three images "
        "of each class of another data set; or, with the options below, augmented samples of an image, or digits with "
        "their labels."
    )
    add_data_option(parser, download=True)
    add_label_options(parser)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--augment", choices=AUGMENTATIONS, help="one image with this augmentation in eleven epochs")
    either.add_argument("--dataset", choices=DIGITS, help="nine of its test images with their labels")
    parser.add_argument("--weights", type=path, metavar="PATH", help="a network for digits: show its predictions, too")
    default = "show it, or write output/images.png if there is no screen"
    parser.add_argument("--output", type=path, metavar="FILE.png", help=f"file of the figure (default: {default})")
    args = parser.parse_args()
    if args.weights and args.augment:
        parser.error("--weights or --augment, not both")
    if args.download and not (args.dataset or args.weights):
        parser.error("--download goes with --dataset")
    return args


def main():
    args = parse_args()

    from palm_cls.data.samples import show_or_write

    digits = args.dataset or args.weights
    written = show_or_write(draw_digits(args) if digits else draw_photos(args), args.output)
    if written:
        print(f"figure: {written}")
    return 0


def data_options(args):
    return DataOptions(args.data, train_csv=args.train_csv, classes=args.classes, positive=args.positive)


def draw_photos(args):
    from palm_cls.data.labels import CLASSES
    from palm_cls.data.palm import Dataset
    from palm_cls.data.photos import check_photos, find_photos, photo_loader
    from palm_cls.data.samples import augmentation_figure, classes_figure, lesson_figure

    dataset, options = find_photos(data_options(args))
    loader = None
    if not isinstance(dataset, Dataset) or options.train_csv or options.classes != CLASSES:
        loader = photo_loader(dataset, "all", options)
        check_photos(dataset, {"training": loader})
    if args.augment:
        return augmentation_figure(dataset, args.augment, loader)
    if loader:
        return classes_figure(dataset, loader)
    figure, shapes = lesson_figure(dataset)
    for name, shape in shapes.items():
        print(f"{name}: {shape} {dataset.disclaimer}".rstrip())
    return figure


def draw_digits(args):
    from palm_cls.data.loader_factory import make_valid_loader
    from palm_cls.data.samples import digits_figure

    recipe = next((recipe for recipe in RECIPES.values() if recipe.dataset == args.dataset), None)
    model = None
    if args.weights:
        recipe, model = load_digits_model(args.weights, args.dataset)
    loader, _ = make_valid_loader(recipe, data_options(args), download=args.download)
    return digits_figure(loader, predict_first(model, loader) if model else None)


def predict_first(model, loader):
    """Predict the classes of the first nine images, int64 [9]."""
    import numpy as np

    from palm_cls.eval.engine import predict

    model.eval()
    return predict(model, np.stack([loader.load_input(name) for name in loader.order[:9]])).argmax(axis=1)


def load_digits_model(weights, dataset):
    """Load a network for digits or garments.

    Args:
        weights: A run directory or a `.pdparams` file.
        dataset: The data set that it must be for, or None.

    Returns:
        (recipe, model).

    Raises:
        InputError: It is for other images.
    """
    from palm_cls.checkpoints.metadata import read_metadata
    from palm_cls.checkpoints.weights import load, resolve_weights
    from palm_cls.recipes import build_model, find_recipe

    weights = resolve_weights(weights)
    name = read_metadata(weights).get("model")
    if name not in list(RECIPES) or find_recipe(name).dataset not in ([dataset] if dataset else DIGITS):
        raise InputError(f"{weights}: not weights of a network for {dataset or ' or '.join(DIGITS)}")
    model = build_model(name)
    load(weights, model)
    return find_recipe(name), model


if __name__ == "__main__":
    run(main)
