"""Compare runs: a table, their curves, and for two of them the tests on the same images. Or compare cross-validations.

python tools/compare.py RUN RUN ... [--output FIGURE.png]
"""

import os

from _cli import Parser, path, run, tool_command

DEFAULT = os.path.join("output", "compare.png")


def parse_args():
    parser = Parser(
        description="Compare runs: a table, their curves as a figure, and for two of them the tests on the same images."
    )
    runs = "directory of a run, of runs with several seeds, or of a cross-validation"
    parser.add_argument("runs", type=path, nargs="+", metavar="RUN", help=runs)
    figure = f"the figure of runs (default: {DEFAULT})"
    parser.add_argument("--output", type=path, metavar="FILE.png", help=figure)
    return parser.parse_args()


def main():
    args = parse_args()

    from palm_cls.checkpoints.run_files import read_crossvalidation_settings
    from palm_cls.core.errors import InputError

    if any(map(read_crossvalidation_settings, args.runs)):
        if args.output:
            raise InputError("--output is for the figure of runs, and cross-validations have none; leave it out")
        from palm_cls.eval.crossvalidation import format_comparison, read_crossvalidation

        print(format_comparison(list(map(read_crossvalidation, args.runs))))
        return 0

    from palm_cls.eval.compare import compare_predictions, comparison_table, find_runs
    from palm_cls.eval.compare_figure import plot_curves, write_figure

    runs, missing = find_runs(args.runs)
    lines = [comparison_table(runs)]
    for directory, seeds in missing.items():
        lines += [f"Not begun yet: {directory}, seed {', '.join(map(str, seeds))}. Train what is missing:"]
        lines += [f"    {tool_command('train', '--resume', directory)}"]
    if len(runs) == 2:
        without = [run for run in runs if not run.predictions_file.is_file()]
        lines += [how_to_predict(without) if without else compare_predictions(*runs)]
    figure = write_figure(plot_curves(runs), args.output or DEFAULT)
    print("\n".join(lines))
    print(f"figure: {figure}")
    return 0


def how_to_predict(runs):
    """Return the commands that write the predictions for the tests."""
    commands = [tool_command("evaluate", "--weights", run.path, *data_option(run)) for run in runs]
    return "\n    ".join(["To test the two runs on the same images, first let evaluate.py predict them:", *commands])


def data_option(run):
    data = run.settings.get("data")
    return ("--data", data) if data else ()


if __name__ == "__main__":
    run(main)
