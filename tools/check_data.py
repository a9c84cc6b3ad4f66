"""Check a data set before training: damaged files, labels, sizes, copies across training and validation.

python tools/check_data.py [--data DIR] [--json]

Exit status: 0 nothing found, 1 warnings, 2 errors.
"""

from dataclasses import asdict
from itertools import groupby

from _cli import Parser, add_data_option, add_label_options, path, positive_fraction, run

MAX_SHOWN = 5  # findings of a kind, and files of a finding


def parse_args():
    parser = Parser(
        description="Check a data set before training: damaged files, labels, sizes, copies across the splits.",
        epilog="Exit status: 0 nothing found, 1 warnings, 2 errors.",
    )
    add_data_option(parser)
    add = parser.add_argument
    add_label_options(parser)
    labels = "labels of the validation images, .csv or .xlsx (default: those of the data set)"
    add("--valid-csv", type=path, metavar="FILE", help=labels)
    part = "the share of a division that train.py has made (default: 0.2)"
    add("--valid-fraction", type=positive_fraction, metavar="F", help=part)
    add("--json", action="store_true", help="print all findings as JSON")
    return parser.parse_args()


def main():
    args = parse_args()

    from palm_cls.data.checks import check_data
    from palm_cls.data.options import DataOptions
    from palm_cls.data.photos import find_photos

    names = ("data", "train_csv", "valid_csv", "valid_fraction", "classes", "positive")
    options = DataOptions(**{name: getattr(args, name) for name in names})
    report = check_data(*find_photos(options))
    if args.json:
        import json

        print(json.dumps(as_json(report), indent=2, ensure_ascii=False))
    else:
        print_report(report)
    return 2 if report.count("error") else 1 if report.count("warning") else 0


def as_json(report):
    return {
        "data": str(report.root),
        "remark": report.disclaimer,
        "splits": report.splits,
        "errors": report.count("error"),
        "warnings": report.count("warning"),
        "findings": [asdict(finding) for finding in report.issues],
    }


def print_report(report):
    from palm_cls.data.checks import ISSUE_TYPES

    print(f"{report.root} {report.disclaimer}".rstrip())
    for name, summary in report.splits.items():
        print(f"{name}: {summary['images']} images; {format_counts(summary, 'classes', 'label ')}")
        print("    " + "; ".join(format_counts(summary, what) for what in ("sizes", "channels", "formats")))
    for kind, group in groupby(report.issues, key=lambda finding: finding.kind):
        findings = list(group)
        level, headline = ISSUE_TYPES[kind]
        print(f"{level}: {headline}: {len(findings)}")
        for finding in findings[:MAX_SHOWN]:
            print(f"    {format_finding(finding)}")
        if len(findings) > MAX_SHOWN:
            print(f"    and {len(findings) - MAX_SHOWN} more (--json lists them)")
    print(f"errors: {report.count('error')}, warnings: {report.count('warning')}")


def format_counts(summary, what, prefix=""):
    """Format counts of a summary, as "300 label 0, 100 label 1"; the prefix is for numbers."""
    counts = summary[what].items()
    parts = [f"{number} {prefix if str(value).isdecimal() else ''}{value}" for value, number in counts]
    more = [f"{len(parts) - MAX_SHOWN} other {what}"] if len(parts) > MAX_SHOWN else []
    return ", ".join(parts[:MAX_SHOWN] + more) or f"no {what} known"


def format_finding(finding):
    files, more = finding.files[:MAX_SHOWN], len(finding.files) - MAX_SHOWN
    between = " = " if finding.kind.startswith("identical") or finding.kind == "two-classes" else " ~ "
    names = between.join(files) + (f" and {more} more" if more > 0 else "")
    return ": ".join(filter(None, (names, finding.text)))


if __name__ == "__main__":
    run(main)
