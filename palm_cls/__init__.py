"""The course lesson "LeNet and AlexNet for image classification" on fundus images, in today's PaddlePaddle.

    from palm_cls import LeNet, data_loader, train, valid_data_loader

    train_loader = data_loader("PALM-Training400/PALM-Training400", mode="train")
    valid_loader = valid_data_loader("PALM-Validation400", "PALM-Validation-GT/labels.csv")
    train(LeNet(num_classes=1), train_loader, valid_loader)

All public names, each with its own help(palm_cls.NAME):

Images and labels
    find_dataset         the data set: a directory, the usual places, else the demo set
    draw_demo_set        draws a set of eyes to try the program with
    prepare_data         unpacks the course's archives and converts their table of labels
    xlsx_to_csv          converts a table of labels to the labels.csv that the lesson reads
    read_image           a file as uint8 BGR [height, width, 3]
    transform_img        the lesson's preprocessing: such an image as float32 [3, 224, 224] in -1..1
    data_loader          loader of a directory whose file names contain the label
    valid_data_loader    loader of the images that a table lists
    lesson_figure        a normal and a pathological image side by side

Networks, which take images, float32 [N, 3, 224, 224], and return logits, float32 [N, num_classes]
    LeNet, AlexNet       as the course wrote them
    build_model          the network of any recipe
    load_pretrained      ImageNet's weights, for VGG-16, GoogLeNet and ResNet-50
    format_summary       the table of a network's layers, as text
    network_figure       the layers as boxes with their shapes

Training
    choose_device        GPU or CPU, and says which
    set_seed             the same seed gives the same numbers
    train                the lesson's loop
    train_recipe         a recipe from its seed to its report, as tools/train.py does
    resume_recipe        resumes a run as if it had never stopped
    crossvalidate        a recipe on the training images: each predicted by a network trained without it

How good it is
    evaluation           the lesson's: loss and accuracy
    assess               all metrics, with intervals
    format_metrics       metrics as lines for people
    write_report         everything about a run: report.html and its figures

Prediction
    load_model           the network of a run, of a file of weights or of an export
    find_images          the images in folders and patterns
    predict_images       the probabilities and the predicted class of each image
    grad_cam             a heat map: the regions of an image that raise the logit of a label
    overlay              that map over the photograph
    feature_figure       the filters and feature maps of a network, layer by layer
    serve_page           a web page to try a network, as tools/app.py does

Weights
    save, load           .pdparams and .pdopt files, also those of PaddlePaddle 1.6
    export_network       a network for Paddle Inference or as ONNX

Errors, in one or two plain lines
    InputError           something given cannot be used: a file, a directory, an option
    RunError             a run had to stop: a loss that is not finite, a directory in use

A name is imported when it is first used, so that `import palm_cls` is fast. Everything else is in the modules.
"""

from palm_cls.core import environment

environment.configure()  # before anything imports paddle or OpenCV, which then no longer look at it

_HOME = {
    "find_dataset": "data.palm",
    "draw_demo_set": "data.demo_set",
    "prepare_data": "data.prepare",
    "xlsx_to_csv": "data.labels",
    "read_image": "data.images",
    "transform_img": "data.images",
    "data_loader": "data.loaders",
    "valid_data_loader": "data.loaders",
    "lesson_figure": "data.samples",
    "LeNet": "models.lenet",
    "AlexNet": "models.alexnet",
    "build_model": "recipes",
    "load_pretrained": "checkpoints.pretrained",
    "format_summary": "models.summary",
    "network_figure": "models.summary_figure",
    "choose_device": "core.device",
    "set_seed": "core.device",
    "train": "training.experiment",
    "train_recipe": "training.experiment",
    "resume_recipe": "training.experiment",
    "crossvalidate": "training.crossvalidation",
    "evaluation": "eval.evaluate",
    "assess": "eval.assess",
    "format_metrics": "eval.metrics_text",
    "write_report": "eval.report",
    "load_model": "deploy.predict",
    "find_images": "deploy.predict",
    "predict_images": "deploy.predict",
    "grad_cam": "eval.gradcam",
    "overlay": "eval.gradcam",
    "feature_figure": "eval.features_figure",
    "serve_page": "deploy.app",
    "save": "checkpoints.weights",
    "load": "checkpoints.weights",
    "export_network": "deploy.export",
    "InputError": "core.errors",
    "RunError": "core.errors",
}

# Names of the version before, importable for one more release.
_RENAMED = {
    "format_measures": "format_metrics",
    "trained_network": "load_model",
    "predictions": "predict_images",
}


def __getattr__(name):
    from importlib import import_module

    name = _RENAMED.get(name, name)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    """The public names, for Tab and for help(), which would follow an `__all__` into all that a network inherits."""
    return sorted(_HOME)
