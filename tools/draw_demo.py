"""Draw the demo set, in the course's layout or in a folder for each class.

python tools/draw_demo.py DIR [--layout course|folders] [--train N] [--valid N]
"""

from _cli import Parser, path, positive_int, run


def parse_args():
    parser = Parser(description="Draw the demo set, in the course's layout or in a folder for each class.")
    add = parser.add_argument
    add("directory", type=path, metavar="DIR", help="a new or empty directory")
    layouts = "the course's, or train/CLASS/*.jpg and val/CLASS/*.jpg"
    add("--layout", choices=("course", "folders"), default="course", help=f"{layouts} (default: course)")
    add("--train", type=positive_int, default=200, metavar="N", help="number of training images (default: 200)")
    add("--valid", type=positive_int, default=100, metavar="N", help="number of validation images (default: 100)")
    return parser.parse_args()


def main():
    args = parse_args()

    from palm_cls.data.data_root import DEMO_DISCLAIMER
    from palm_cls.data.demo_set import draw_demo_set

    counts = draw_demo_set(args.directory, args.train, args.valid, args.layout)
    splits = []
    for split, numbers in counts.items():
        classes = ", ".join(f"{number} {name}" for name, number in numbers.items())
        splits.append(f"{sum(numbers.values())} {split} images ({classes})")
    print(f"{args.directory}: {', '.join(splits)} {DEMO_DISCLAIMER}")
    return 0


if __name__ == "__main__":
    run(main)
