"""Convert the table of labels from .xlsx to the CSV that the lesson reads.

python tools/xlsx2csv.py [IN.xlsx [OUT.csv]]
"""

from _cli import Parser, add_data_option, path, run


def parse_args():
    parser = Parser(description="Convert the table of labels from .xlsx to the CSV that the lesson reads.")
    add = parser.add_argument
    add("xlsx", type=path, nargs="?", metavar="IN.xlsx", help="the table (default: that in the data directory)")
    add("csv", type=path, nargs="?", metavar="OUT.csv", help="the new table (default: labels.csv beside IN.xlsx)")
    add_data_option(parser)
    args = parser.parse_args()
    if args.xlsx and args.data:
        parser.error("IN.xlsx or --data, not both")
    return args


def main():
    args = parse_args()

    from palm_cls.data.labels import xlsx_to_csv
    from palm_cls.data.palm import find_workbooks

    for workbook in [args.xlsx] if args.xlsx else find_workbooks(args.data):
        written, labels = xlsx_to_csv(workbook, args.csv)
        positive = sum(label.label for label in labels)
        print(f"{written}: {len(labels)} images, {positive} with label 1, {len(labels) - positive} with label 0")
    return 0


if __name__ == "__main__":
    run(main)
