"""Write the report of a run again: its report.html, figures, evaluation.json and predictions.csv.

python tools/report.py output/alexnet
"""

from _cli import Parser, add_runtime_options, configure_runtime, fraction, path, run


def parse_args():
    parser = Parser(description="Write the report of a run again: report.html, figures and metrics.")
    add = parser.add_argument
    add("run", type=path, metavar="RUN", help="the directory of a run")
    add("--data", type=path, metavar="DIR", help="directory of the data set (default: that of the run)")
    add("--threshold", type=fraction, default=0.5, metavar="T", help="positive above this probability (default: 0.5)")
    add_runtime_options(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    configure_runtime(vars(args))

    from palm_cls.eval.report import report_run

    print(f"written: {report_run(args.run, args.data, args.device, args.cache, args.threshold)}")
    return 0


if __name__ == "__main__":
    run(main)
