"""Train a network on the fundus images, as the lesson does.

python tools/train.py --model lenet
"""

from pathlib import Path

from _cli import Parser, add_data_option, add_device_options, fraction, positive_float, positive_int, run, seed

from palm_cls.zoo import RECIPES


def parse_args():
    parser = Parser(description="Train a network on the fundus images, as the lesson does.")
    add = parser.add_argument
    add("--model", choices=RECIPES, default="lenet", help="the network (default: %(default)s)")
    add_data_option(parser)
    add("--train-csv", metavar="FILE", help="labels of the training images, .csv or .xlsx (default: their names tell)")
    add("--epochs", type=positive_int, default=5, metavar="N", help="default: %(default)s")
    add("--lr", type=positive_float, default=0.001, metavar="X", help="learning rate (default: %(default)s)")
    add("--momentum", type=fraction, default=0.9, metavar="X", help="default: %(default)s")
    add("--seed", type=seed, default=0, metavar="N", help="default: %(default)s")
    add("--weights", metavar="PATH", help="start from these: a .pdparams file, or a run's directory (its best epoch)")
    add_device_options(parser)
    add("--output", metavar="DIR", help="where the run goes (default: output/MODEL)")
    add("--summary", action="store_true", help="print the table of layers, and stop")
    return parser.parse_args()


def main():
    args = parse_args()
    output = Path(args.output or Path("output", args.model))

    from palm_cls import runtime
    from palm_cls.checkpoint import load
    from palm_cls.dataset import find_dataset
    from palm_cls.models import format_summary
    from palm_cls.readers import dataset_readers
    from palm_cls.training import train
    from palm_cls.zoo import build_model

    if args.summary:
        print(format_summary(build_model(args.model)))
        return 0
    device = runtime.choose_device(args.device)
    dataset = find_dataset(args.data)
    train_loader, valid_loader = dataset_readers(dataset, args.batch_size, args.train_csv)
    runtime.set_seed(args.seed)
    model = build_model(args.model)
    if args.weights:
        load(args.weights, model)
    settings = {
        "model": args.model,
        "data": str(dataset.root),
        "demo": dataset.is_demo,
        "train_csv": args.train_csv,
        "train_images": train_loader.images,
        "valid_images": valid_loader.images,
        "batch_size": args.batch_size,
        "seed": args.seed,
        "weights": args.weights,
        "device": device,
        "threads": runtime.threads(),
    }
    history = train(
        model,
        train_loader,
        valid_loader,
        epochs=args.epochs,
        learning_rate=args.lr,
        momentum=args.momentum,
        output=output,
        settings=settings,
        remark=dataset.remark,
    )
    print(closing_words(history, output, RECIPES[args.model], dataset.remark))
    return 0


def closing_words(history, output, recipe, remark):
    from palm_cls.messages import command_line
    from palm_cls.runs import best_record

    last, best = history[-1], best_record(history)
    command = command_line("python", "tools/evaluate.py", "--weights", output)
    lines = [
        f"last epoch {last['epoch']}: accuracy {last['valid_accuracy']:.4f}; best epoch {best['epoch']}: accuracy "
        f"{best['valid_accuracy']:.4f}; on {last['valid_images']} validation images {remark}".rstrip(),
        f"The run lies in {output}. Evaluate its best epoch:\n    {command}",
    ]
    return "\n".join([*lines, recipe.advice] if recipe.advice else lines)


if __name__ == "__main__":
    run(main)
