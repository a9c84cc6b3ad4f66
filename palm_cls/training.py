"""The lesson's training: `train`, which knows no network by name, and `train_recipe`, one recipe from seed to run."""

from collections import namedtuple
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from palm_cls import runtime  # noqa: F401  settles the threads before paddle is imported
import paddle

from palm_cls.checkpoint import load
from palm_cls.dataset import find_dataset
from palm_cls.evaluation import cross_entropy, evaluate, predicted_classes
from palm_cls.readers import dataset_readers
from palm_cls.runs import save_epoch, start_run
from palm_cls.zoo import build_model, find_recipe

# output: Path of the run's directory; history: what `train` returns; dataset: the Dataset; model: the trained network
TrainedRun = namedtuple("TrainedRun", ("output", "history", "dataset", "model"))


def train(
    model,
    train_loader,
    valid_loader,
    epochs=5,
    learning_rate=0.001,
    momentum=0.9,
    log_every=10,
    output=None,
    settings=None,
    remark="",
):
    """Train `model` with the lesson's loop and print the lesson's lines; the defaults are the lesson's.

    train_loader, valid_loader: readers, as `data_loader` and `valid_data_loader` return them. log_every: batches from
    one line of loss to the next. output: directory for checkpoints and log (see `palm_cls.runs`); without it
    nothing is written. settings: what else settings.json should tell, {name: value}. remark: text after every result.

    Returns a list with one dict an epoch: "epoch" from 0, "train_loss" and "train_accuracy" (while training, over the
    epoch), "valid_loss" and "valid_accuracy" (after it), "valid_images"; all weighted by sample.
    """
    settings = {**(settings or {}), "epochs": epochs, "learning_rate": learning_rate, "momentum": momentum}
    if output:
        start_run(output, settings)
    optimizer = paddle.optimizer.Momentum(learning_rate, momentum, parameters=model.parameters())
    history = []
    print("start training ... ")
    for epoch in range(epochs):
        loss, accuracy = train_one_epoch(model, train_loader, optimizer, epoch, log_every)
        valid = evaluate(model, valid_loader)
        tqdm.write(f"[validation] accuracy/loss: {valid['accuracy']}/{valid['loss']} {remark}".rstrip())
        record = {
            "epoch": epoch,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "valid_loss": valid["loss"],
            "valid_accuracy": valid["accuracy"],
            "valid_images": valid["images"],
        }
        history.append(record)
        if output:
            save_epoch(output, history, model, optimizer)
    return history


def train_one_epoch(model, loader, optimizer, epoch, log_every=10):
    """One pass over a reader; returns the mean loss and the accuracy over its samples, measured while training."""
    model.train()
    samples = hits = total_loss = 0
    batches = tqdm(loader(), f"epoch {epoch}", getattr(loader, "batches", None), leave=False, disable=None)
    for batch_id, (imgs, labels) in enumerate(batches):
        logits = model(paddle.to_tensor(imgs))
        loss = cross_entropy(logits, paddle.to_tensor(labels))
        if batch_id % log_every == 0:
            tqdm.write(f"epoch: {epoch}, batch_id: {batch_id}, loss is: {loss.item():.8g}")
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()

        samples += len(imgs)
        total_loss += loss.item() * len(imgs)
        hits += int((predicted_classes(logits.detach()) == labels.flatten()).sum())
    return total_loss / samples, hits / samples


def train_recipe(
    name, data=None, train_csv=None, skip_bad=False, seed=0, weights=None, device=None, output=None, **changes
):
    """Train the recipe `name` (see `palm_cls.zoo`) as `tools/train.py` does, and return a TrainedRun.

    data: directory of the data set, as `find_dataset` takes it; train_csv: table of the training labels; skip_bad: pass
    over training images that do not decode, and tell so; weights: where to start from, as `load` takes it; device: as
    `choose_device` takes it; output: default output/`name`. `changes` override entries of the recipe: epochs,
    batch_size, learning_rate, momentum. Raises InputError for what is missing.
    """
    recipe = replace(find_recipe(name), **changes)
    device = runtime.choose_device(device)
    dataset = find_dataset(data)
    train_loader, valid_loader = dataset_readers(dataset, recipe.batch_size, train_csv, skip_bad)
    runtime.set_seed(seed)
    model = build_model(name)
    if weights is not None:
        load(weights, model)
    settings = {
        "model": name,
        "data": str(dataset.root),
        "demo": dataset.is_demo,
        "train_csv": None if train_csv is None else str(train_csv),
        "skip_bad": skip_bad,
        "train_images": train_loader.images,
        "valid_images": valid_loader.images,
        "batch_size": recipe.batch_size,
        "seed": seed,
        "weights": None if weights is None else str(weights),
        "device": device,
        "threads": runtime.threads(),
    }
    output = Path(output or Path("output", name))
    history = train(
        model,
        train_loader,
        valid_loader,
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        momentum=recipe.momentum,
        output=output,
        settings=settings,
        remark=dataset.remark,
    )
    return TrainedRun(output, history, dataset, model)
