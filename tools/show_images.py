"""Draw images of each class, augmented samples of an image, digits with their labels, or a network's features.

python tools/show_images.py [--data DIR] [--output FIGURE.png]
python tools/show_images.py --augment lesson
python tools/show_images.py --dataset fashion-mnist [--weights output/lenet-fashion]
python tools/show_images.py --features --weights output/lenet [IMAGE [IMAGE]]
"""

from _cli import Parser, add_data_option, add_label_options, path, run

from palm_cls.core.errors import InputError
from palm_cls.recipes import AUGMENTATIONS, RECIPES

DIGITS = ("mnist", "fashion-mnist")


def parse_args():
    parser = Parser(
        description="Draw the lesson's figure, a normal fundus image and one with pathological myopia, or three images "
        "of each class of another data set; or, with the options below, augmented samples of an image, digits with "
        "their labels, or the filters and feature maps of a network."
    )
    add_data_option(parser, download=True)
    add_label_options(parser)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--augment", choices=AUGMENTATIONS, help="one image with this augmentation in eleven epochs")
    either.add_argument("--dataset", choices=DIGITS, help="nine of its test images with their labels")
    features = "filters and feature maps of --weights, layer by layer"
    either.add_argument("--features", action="store_true", help=features)
    weights = "a network for digits: show its predictions, too; with --features one for photographs"
    parser.add_argument("--weights", type=path, metavar="PATH", help=weights)
    parser.add_argument("--model", choices=RECIPES, help="of --features, if the weights do not name their recipe")
    shown = "one or two photographs for --features (default: a normal and a pathological one of the data set)"
    parser.add_argument("images", nargs="*", type=path, metavar="IMAGE", help=shown)
    default = "show it, or write output/images.png if there is no screen"
    parser.add_argument("--output", type=path, metavar="FILE.png", help=f"file of the figure (default: {default})")
    args = parser.parse_args()
    if args.weights and args.augment:
        parser.error("--weights or --augment, not both")
    if args.features and not args.weights:
        parser.error("--features needs the network: --weights PATH")
    if (args.images or args.model) and not args.features:
        parser.error("IMAGE and --model go with --features")
    if len(args.images) > 2:
        parser.error("--features shows one image or two")
    if args.download and (args.features or not (args.dataset or args.weights)):
        parser.error("--download goes with --dataset")
    return args


def main():
    args = parse_args()

    from palm_cls.data.samples import show_or_write

    digits = args.dataset or args.weights
    draw = draw_features if args.features else draw_digits if digits else draw_photos
    written = show_or_write(draw(args), args.output)
    if written:
        print(f"figure: {written}")
    return 0


def data_options(args):
    from palm_cls.data.options import DataOptions

    return DataOptions(args.data, train_csv=args.train_csv, classes=args.classes, positive=args.positive)


def open_photos(args):
    """Return the data set, and a loader of its images; None for the lesson's images, of which two are shown."""
    from palm_cls.data.labels import CLASSES
    from palm_cls.data.palm import Dataset
    from palm_cls.data.photos import find_photos, photo_loader

    dataset, options = find_photos(data_options(args))
    if isinstance(dataset, Dataset) and not options.train_csv and options.classes == CLASSES:
        return dataset, None
    return dataset, photo_loader(dataset, "all", options)


def draw_photos(args):
    from palm_cls.data.photos import check_photos
    from palm_cls.data.samples import augmentation_figure, classes_figure, lesson_figure

    dataset, loader = open_photos(args)
    if loader:
        check_photos(dataset, {"training": loader})
    if args.augment:
        return augmentation_figure(dataset, args.augment, loader)
    if loader:
        return classes_figure(dataset, loader)
    figure, shapes = lesson_figure(dataset)
    for name, shape in shapes.items():
        print(f"{name}: {shape} {dataset.disclaimer}".rstrip())
    return figure


def draw_features(args):
    from pathlib import Path

    from palm_cls.data.data_root import DEMO_DISCLAIMER, is_in_demo_set
    from palm_cls.deploy.predict import load_model
    from palm_cls.eval.features_figure import feature_figure

    model, metadata = load_model(args.weights, args.model)
    images = args.images or find_examples(args)
    is_demo = metadata.get("demo") or any(is_in_demo_set(Path(image).parent) for image in images)
    title = f"{args.model or metadata['model']}: features, layer by layer"
    return feature_figure(model, images, f"{title} {DEMO_DISCLAIMER}" if is_demo else title)


def find_examples(args):
    """Return the paths of a photograph of the first class and one of the last."""
    from pathlib import Path

    from palm_cls.data.samples import example_names, lesson_examples

    dataset, loader = open_photos(args)
    if not loader:
        return lesson_examples(dataset)
    names = [name for number in (0, len(loader.classes) - 1) for name in example_names(loader, number, 1)]
    return [Path(loader.directory, name) for name in names]


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
