"""Convert the table of labels from .xlsx to the CSV that the lesson reads.

python tools/xlsx2csv.py [IN.xlsx [OUT.csv]]
"""

from _cli import Parser, add_data_option, run

from palm_cls.dataset import find_dataset
from palm_cls.labels import xlsx_to_csv
from palm_cls.messages import InputError


def parse_args():
    parser = Parser(description="Convert the table of labels from .xlsx to the CSV that the lesson reads.")
    parser.add_argument("xlsx", nargs="?", metavar="IN.xlsx", help="default: the one in the directory of the data set")
    parser.add_argument("csv", nargs="?", metavar="OUT.csv", help="default: labels.csv beside IN.xlsx")
    add_data_option(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    for workbook in [args.xlsx] if args.xlsx else workbooks(args.data):
        path, labels = xlsx_to_csv(workbook, args.csv)
        positive = sum(label.label for label in labels)
        print(f"{path}: {len(labels)} images, {positive} with label 1, {len(labels) - positive} with label 0")
    return 0


def workbooks(data):
    dataset = find_dataset(data)
    if not dataset.workbooks:
        raise InputError(f"{dataset.root}: no {dataset.layout.xlsx} in it; name the .xlsx to convert")
    return dataset.workbooks


if __name__ == "__main__":
    run(main)
