"""Write a trained network for Paddle Inference or as ONNX, and check it in that runtime.

python tools/export.py --weights output/alexnet --format onnx
"""

from _cli import Parser, path, run, tool_command

from palm_cls.recipes import RECIPES, find_recipe


def parse_args():
    parser = Parser(description="Write a trained network for Paddle Inference or as ONNX, and check it there.")
    add = parser.add_argument
    add("--weights", type=path, required=True, metavar="PATH", help="a run (its best epoch), or a .pdparams file")
    add("--format", choices=("paddle", "onnx"), required=True, help="a directory for Paddle Inference, or a .onnx file")
    add("--model", choices=RECIPES, help="the network (default: the one that the weights tell)")
    add("--output", type=path, metavar="PATH", help="new; a .onnx file for ONNX (default: beside the weights)")
    return parser.parse_args()


def main():
    args = parse_args()

    from palm_cls.core.console import log
    from palm_cls.core.device import choose_device
    from palm_cls.deploy.export import export_network

    choose_device("cpu")
    written = export_network(args.weights, args.format, args.model, args.output)
    if "note" in written.about:
        log(written.about["note"])
    print(f"written: {written.path}")
    print(f"Run in its own runtime, it gives the network's logits within {written.deviation:.1e} of the largest.")
    if find_recipe(written.about["model"]).data == "palm":
        print(f"Predict with it:\n    {tool_command('predict', '--weights', written.path, 'PHOTOS')}")
    return 0


if __name__ == "__main__":
    run(main)
