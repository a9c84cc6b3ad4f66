"""The lesson's training loop. It knows no network by name: anything that returns logits can be trained."""

from tqdm import tqdm

from palm_cls import runtime  # noqa: F401  settles the threads before paddle is imported
import paddle

from palm_cls.evaluation import cross_entropy, evaluate, predicted_classes
from palm_cls.runs import save_epoch, start_run


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
