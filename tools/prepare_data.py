"""Unpack the course's archives into the layout that the tools read, and convert the table of labels.

python tools/prepare_data.py [--archives DIR] [--data DIR]
"""

from _cli import Parser, run

from palm_cls.dataset import ARCHIVES, image_names, prepare_data
from palm_cls.labels import read_labels


def main():
    parser = Parser(description="Unpack the course's archives into the layout that the tools read; convert the labels.")
    found = "the target, or /home/aistudio/data/data19065"
    parser.add_argument("--archives", metavar="DIR", help=f"directory of {', '.join(ARCHIVES)} (default: {found})")
    target = "$PALM_DATA, /home/aistudio/work/palm, or data/palm"
    parser.add_argument("--data", metavar="DIR", help=f"target (default: {target})")
    args = parser.parse_args()

    dataset, written = prepare_data(args.archives, args.data)
    training, validation = len(image_names(dataset.train_images)), len(read_labels(dataset.valid_labels))
    print(f"{dataset.root}: {training} training, {validation} labelled validation images; {written} files written")
    return 0


if __name__ == "__main__":
    run(main)
