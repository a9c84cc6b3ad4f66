"""Draw the lesson's figure: a normal fundus image and one with pathological myopia.

python tools/show_images.py [--output FIGURE.png]
"""

import os

from _cli import Parser, add_data_option, path, run


def main():
    parser = Parser(description="Draw the lesson's figure: a normal fundus image and one with pathological myopia.")
    add_data_option(parser)
    default = "show it, or without a screen write output/images.png"
    parser.add_argument("--output", type=path, metavar="FILE.png", help=f"write there (default: {default})")
    args = parser.parse_args()
    if os.environ.get("MPLBACKEND", "").startswith("module://"):
        del os.environ["MPLBACKEND"]  # a notebook's, inherited by "!python ...": it draws in that process only

    from palm_cls.dataset import find_dataset
    from palm_cls.figures import lesson_figure, show_or_write

    dataset = find_dataset(args.data)
    figure, shapes = lesson_figure(dataset)
    for name, shape in shapes.items():
        print(f"{name}: {shape} {dataset.remark}".rstrip())
    written = show_or_write(figure, args.output)
    if written:
        print(f"figure: {written}")
    return 0


if __name__ == "__main__":
    run(main)
