# -*- coding: utf-8 -*-
"""Recipes for everything that the goldens were made from; needs numpy (and cv2 for jpegs) only.

Works unchanged on Python 3.6+ and any numpy (RandomState streams are frozen by numpy).
All draws are made in float64 and cast to float32 at the end.
"""

import os

import numpy as np

# (name, shape) in the order of drawing = forward order, weight before bias.
# Conv weight OIHW, FC weight [in, out].
SHAPES = {
    "lenet1": [  # LeNet(num_classes=1), input 3x224x224
        ("conv1.weight", (6, 3, 5, 5)),
        ("conv1.bias", (6,)),
        ("conv2.weight", (16, 6, 5, 5)),
        ("conv2.bias", (16,)),
        ("conv3.weight", (120, 16, 4, 4)),
        ("conv3.bias", (120,)),
        ("fc1.weight", (300000, 64)),
        ("fc1.bias", (64,)),
        ("fc2.weight", (64, 1)),
        ("fc2.bias", (1,)),
    ],
    "lenet10": [  # LeNet(num_classes=10), input 1x28x28
        ("conv1.weight", (6, 1, 5, 5)),
        ("conv1.bias", (6,)),
        ("conv2.weight", (16, 6, 5, 5)),
        ("conv2.bias", (16,)),
        ("conv3.weight", (120, 16, 4, 4)),
        ("conv3.bias", (120,)),
        ("fc1.weight", (120, 64)),
        ("fc1.bias", (64,)),
        ("fc2.weight", (64, 10)),
        ("fc2.bias", (10,)),
    ],
    "alexnet1": [  # AlexNet(num_classes=1), input 3x224x224
        ("conv1.weight", (96, 3, 11, 11)),
        ("conv1.bias", (96,)),
        ("conv2.weight", (256, 96, 5, 5)),
        ("conv2.bias", (256,)),
        ("conv3.weight", (384, 256, 3, 3)),
        ("conv3.bias", (384,)),
        ("conv4.weight", (384, 384, 3, 3)),
        ("conv4.bias", (384,)),
        ("conv5.weight", (256, 384, 3, 3)),
        ("conv5.bias", (256,)),
        ("fc1.weight", (12544, 4096)),
        ("fc1.bias", (4096,)),
        ("fc2.weight", (4096, 4096)),
        ("fc2.bias", (4096,)),
        ("fc3.weight", (4096, 1)),
        ("fc3.bias", (1,)),
    ],
}
INIT_SEED = {"lenet1": 101, "lenet10": 102, "alexnet1": 103}
STEPS, PER_EPOCH, BATCH = 20, 10, 10  # the seed's loop with 2 epochs of 10 batches of 10


def init_state(model):
    """The initial parameters: the original's distributions, but biases 0.1*N(0,1), not zero."""
    rs = np.random.RandomState(INIT_SEED[model])
    state = []
    for name, shape in SHAPES[model]:
        if len(shape) == 4:
            a = rs.randn(*shape) * np.sqrt(2.0 / (shape[1] * shape[2] * shape[3]))
        elif len(shape) == 2:
            lim = np.sqrt(6.0 / (shape[0] + shape[1]))
            a = rs.uniform(-lim, lim, shape)
        else:
            a = 0.1 * rs.randn(*shape)
        state.append((name, a.astype("float32")))
    return state


def palm_batch(seed, n=BATCH):
    """One batch as data_loader yields it: x [n,3,224,224] float32 in [-0.7,0.7], y [n,1] float32 of 0/1.
    The label shows in the brightness of the left half."""
    rs = np.random.RandomState(seed)
    y = rs.randint(0, 2, (n, 1))
    x = rs.uniform(-0.5, 0.5, (n, 3, 224, 224))
    x[:, :, :, :112] += (0.4 * (y - 0.5)).reshape(n, 1, 1, 1)
    return x.astype("float32"), y.astype("float32")


def mnist_batch(seed, n=BATCH):
    """One batch: x [n,1,28,28] float32 in about [-1,1], y [n,1] int64 of 0..9 (a bright bar at row 2y+4)."""
    rs = np.random.RandomState(seed)
    y = rs.randint(0, 10, (n, 1))
    x = rs.uniform(-1.0, 0.0, (n, 1, 28, 28))
    for i in range(n):
        r = 2 * int(y[i, 0]) + 4
        x[i, 0, r : r + 2, 4:24] += 1.0
    return x.astype("float32"), y.astype("int64")


def train_seed(step):
    return 1000 + step  # step = 0..19


def valid_seed(i):
    return 5000 + i  # i = 0..3: 40 samples in 4 batches


def sample_index(size, k=64):
    """Flat (C order) indices whose values the goldens keep for each parameter."""
    return np.unique(np.linspace(0, size - 1, min(k, size)).astype("int64"))


# ---- JPEG files of the data reader's golden ----------------------------------------------
JPEG_SIZES = [(300 + 13 * i, 280 + 11 * i) for i in range(21)] + [
    (768, 576),
    (1444, 1444),
    (2124, 2056),
    (2124, 2056),
]  # (width, height)


def jpeg_name(i):
    return "%s%04d.jpg" % ("NHP"[i % 3], i + 1)


def jpeg_label(i):
    return 1 if i % 3 == 2 else 0


def jpeg_image(i):
    """uint8 BGR picture: gradients, a bright disc, and noise (coarse; fine for the small ones)."""
    w, h = JPEG_SIZES[i]
    rs = np.random.RandomState(7000 + i)
    yy, xx = np.mgrid[0:h, 0:w].astype("float64")
    img = np.empty((h, w, 3))
    for c in range(3):
        a, b, d = rs.uniform(-1, 1, 3)
        img[:, :, c] = 110 + 70 * (a * xx / w + b * yy / h) + 20 * np.sin(6.0 * d * (xx / w + yy / h) + c)
    cx, cy, r = rs.uniform(0.3, 0.7) * w, rs.uniform(0.3, 0.7) * h, 0.12 * min(w, h)
    img[(xx - cx) ** 2 + (yy - cy) ** 2 < r * r] += 60
    block = max(1, w // 150)
    noise = rs.uniform(-25, 25, (h // block + 1, w // block + 1, 3))
    img += noise.repeat(block, 0).repeat(block, 1)[:h, :w]
    return np.clip(np.rint(img), 0, 255).astype("uint8")


def write_jpegs(folder, quality=85):
    import cv2

    if not os.path.isdir(folder):
        os.makedirs(folder)
    names = []
    for i in range(len(JPEG_SIZES)):
        names.append(jpeg_name(i))
        cv2.imwrite(os.path.join(folder, names[-1]), jpeg_image(i), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return names


def write_csv(path):
    """labels.csv as valid_data_loader reads it; the rows are in reversed order of the files, and the
    label is 1 for every 4th row, so that neither the order nor the label comes from the file name."""
    n = len(JPEG_SIZES)
    with open(path, "w") as f:
        f.write("ID,imgName,Label,Fovea_X,Fovea_Y\n")
        for row, i in enumerate(reversed(range(n))):
            f.write("%d,%s,%d,%.2f,%.2f\n" % (row + 1, jpeg_name(i), 1 if row % 4 == 0 else 0, 10.5 + i, 20.25 + i))
