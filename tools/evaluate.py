"""Evaluate trained weights on the validation images.

python tools/evaluate.py --weights output/alexnet
"""

from _cli import Parser, add_data_option, add_runtime_options, path, positive_int, run, settle_runtime

from palm_cls.zoo import RECIPES


def parse_args():
    parser = Parser(description="Evaluate trained weights on the validation images.")
    add = parser.add_argument
    add("--weights", type=path, required=True, metavar="PATH", help="a run (its best epoch), or a .pdparams file")
    add("--model", choices=RECIPES, help="the network (default: that of the run in which the weights lie)")
    add_data_option(parser)
    add("--batch-size", type=positive_int, default=10, metavar="N", help="images at a time (default: %(default)s)")
    add_runtime_options(parser)
    return parser, parser.parse_args()


def main():
    parser, args = parse_args()
    settle_runtime(vars(args))

    from palm_cls import runtime
    from palm_cls.checkpoint import weights_file
    from palm_cls.dataset import find_dataset
    from palm_cls.evaluation import evaluation
    from palm_cls.readers import valid_reader
    from palm_cls.runs import read_settings
    from palm_cls.zoo import build_model

    weights = weights_file(args.weights)
    model = args.model or read_settings(weights).get("model")
    if not isinstance(model, str):
        parser.error(f"{weights} does not tell its network; give --model")
    runtime.choose_device(args.device)
    dataset = find_dataset(args.data)
    result = evaluation(build_model(model), weights, valid_reader(dataset, args.batch_size, args.cache), dataset.remark)
    print(f"{model}, {weights}: {result['images']} images {dataset.remark}".rstrip())
    return 0


if __name__ == "__main__":
    run(main)
