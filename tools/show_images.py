"""Draw the lesson's figure, an image as augmentation varies it, or digits with their labels.

python tools/show_images.py [--output FIGURE.png]
python tools/show_images.py --augment lesson
python tools/show_images.py --dataset fashion-mnist [--weights output/lenet-fashion]
"""

from _cli import Parser, add_data_option, path, run

from palm_cls.core.errors import InputError
from palm_cls.recipes import AUGMENTATIONS, RECIPES

DIGITS = ("mnist", "fashion-mnist")


def parse_args():
    parser = Parser(
        description="Draw the lesson's figure: a normal fundus image and one with pathological myopia; or, with the "
        "options below, an image as augmentation varies it, or digits with their labels."
    )
    add_data_option(parser, download=True)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--augment", choices=AUGMENTATIONS, help="one image, as this varies it in eleven epochs")
    either.add_argument("--dataset", choices=DIGITS, help="nine of its test images, with their labels")
    parser.add_argument("--weights", type=path, metavar="PATH", help="of a network for digits: what it calls them, too")
    default = "show it, or without a screen write output/images.png"
    parser.add_argument("--output", type=path, metavar="FILE.png", help=f"write there (default: {default})")
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
    written = show_or_write(draw_digits(args) if digits else draw_fundus(args), args.output)
    if written:
        print(f"figure: {written}")
    return 0


def draw_fundus(args):
    from palm_cls.data.palm import find_dataset
    from palm_cls.data.samples import augmentation_figure, lesson_figure

    dataset = find_dataset(args.data)
    if args.augment:
        return augmentation_figure(dataset, args.augment)
    figure, shapes = lesson_figure(dataset)
    for name, shape in shapes.items():
        print(f"{name}: {shape} {dataset.disclaimer}".rstrip())
    return figure


def draw_digits(args):
    from palm_cls.data.loader_factory import make_valid_loader
    from palm_cls.data.samples import digits_figure

    recipe = next((recipe for recipe in RECIPES.values() if recipe.data == args.dataset), None)
    model = None
    if args.weights:
        recipe, model = network(args.weights, args.dataset)
    reader, _ = make_valid_loader(recipe, args.data, download=args.download)
    return digits_figure(reader, predict_first(model, reader) if model else None)


def predict_first(model, reader):
    """The classes that a network gives the first nine images: int64 [9]."""
    import numpy as np

    from palm_cls.eval.engine import predict

    model.eval()
    return predict(model, np.stack([reader.load_input(name) for name in reader.order[:9]])).argmax(axis=1)


def network(weights, dataset):
    """The recipe and the network of weights for digits; InputError where they are of another data set, or of none."""
    from palm_cls.checkpoints.run_dir import describe
    from palm_cls.checkpoints.weights import load, weights_file
    from palm_cls.recipes import build_model, find_recipe

    weights = weights_file(weights)
    name = describe(weights).get("model")
    if name not in list(RECIPES) or find_recipe(name).data not in ([dataset] if dataset else DIGITS):
        raise InputError(f"{weights}: not weights of a network for {dataset or ' or '.join(DIGITS)}")
    model = build_model(name)
    load(weights, model)
    return find_recipe(name), model


if __name__ == "__main__":
    run(main)
