"""Export a trained network for Paddle Inference or as ONNX, and check it in that runtime.

python tools/export.py --weights output/alexnet --format onnx
"""

from _cli import Parser, add_weights_options, path, run, tool_command

from palm_cls.recipes import find_recipe


def parse_args():
    parser = Parser(description="Export a trained network for Paddle Inference or as ONNX, and check it there.")
    add_weights_options(parser)
    add = parser.add_argument
    add("--format", choices=("paddle", "onnx"), required=True, help="a directory for Paddle Inference, or a .onnx file")
    add("--output", type=path, metavar="PATH", help="a new directory or .onnx file (default: beside the weights)")
    return parser.parse_args()


def main():
    args = parse_args()

    from palm_cls.core.console import log
    from palm_cls.core.device import choose_device
    from palm_cls.deploy.export import export_network

    choose_device("cpu")
    exported = export_network(args.weights, args.format, args.model, args.output)
    if "note" in exported.metadata:
        log(exported.metadata["note"])
    print(f"written: {exported.path}")
    error = f"{exported.max_relative_error:.1e}"
    print(f"Run in its own runtime, it gives the network's logits within {error} of the largest.")
    if find_recipe(exported.metadata["model"]).dataset == "palm":
        print(f"Predict with it:\n    {tool_command('predict', '--weights', exported.path, 'PHOTOS')}")
    return 0


if __name__ == "__main__":
    run(main)
