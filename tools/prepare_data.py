"""Unpack the course's archives into the layout that the tools read, and convert the table of labels.

python tools/prepare_data.py [--archives DIR] [--data DIR]
"""

from _cli import Parser, path, run


def parse_args():
    parser = Parser(description="Unpack the course's archives into the layout that the tools read; convert the labels.")
    archives = "the target, or /home/aistudio/data/data19065 unless --data names a directory that holds files"
    target = "$PALM_DATA, /home/aistudio/work/palm, or data/palm"
    parser.add_argument("--archives", type=path, metavar="DIR", help=f"the course's archives (default: {archives})")
    parser.add_argument("--data", type=path, metavar="DIR", help=f"target (default: {target})")
    return parser.parse_args()


def main():
    args = parse_args()

    from palm_cls.data.image_files import image_names
    from palm_cls.data.labels import read_labels
    from palm_cls.data.prepare import prepare_data

    dataset, num_written = prepare_data(args.archives, args.data)
    training, validation = len(image_names(dataset.train_images)), len(read_labels(dataset.valid_labels))
    contents = f"{training} training, {validation} labelled validation images {dataset.disclaimer}".rstrip()
    print(f"{dataset.root}: {contents}; {num_written} files written")
    return 0


if __name__ == "__main__":
    run(main)
