"""palm_cls: the course lesson "LeNet and AlexNet for image classification" on fundus images, in today's PaddlePaddle.

    from palm_cls import LeNet, data_loader, train, valid_data_loader

    train_loader = data_loader("PALM-Training400/PALM-Training400", mode="train")
    valid_loader = valid_data_loader("PALM-Validation400", "PALM-Validation-GT/labels.csv")
    train(LeNet(num_classes=1), train_loader, valid_loader)

The names below are imported when first used, so that `import palm_cls` is fast.
"""

import importlib

from palm_cls import machine  # noqa: F401  its limit for OpenCV must be set before anything imports that, as paddle does

_HOME = {
    "LeNet": "models",
    "AlexNet": "models",
    "LeNetFashion": "small_nets",
    "CNNMnist": "small_nets",
    "layer_table": "models",
    "parameter_count": "models",
    "RECIPES": "zoo",
    "build_model": "zoo",
    "transform_img": "images",
    "data_loader": "readers",
    "valid_data_loader": "readers",
    "dataset_readers": "readers",
    "readers_of": "readers",
    "check_data": "quality",
    "find_dataset": "dataset",
    "prepare_data": "dataset",
    "find_digits": "digits",
    "read_labels": "labels",
    "xlsx_to_csv": "labels",
    "train": "training",
    "train_recipe": "training",
    "resume_recipe": "training",
    "train_seeds": "seeds",
    "resume_seeds": "seeds",
    "evaluate": "evaluation",
    "evaluation": "evaluation",
    "assess": "assessment",
    "binary_measures": "metrics",
    "logits_function": "inference",
    "report_run": "report",
    "write_report": "report",
    "find_images": "prediction",
    "trained_network": "prediction",
    "predictions": "prediction",
    "export_network": "export",
    "exported_network": "exported",
    "serve_page": "page",
    "grad_cam": "cam",
    "overlay": "cam",
    "save": "checkpoint",
    "load": "checkpoint",
    "choose_device": "runtime",
    "set_seed": "runtime",
    "InputError": "messages",
    "RunError": "messages",
}
__all__ = list(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return sorted([*globals(), *__all__])
