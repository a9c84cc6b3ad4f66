"""Synthetic fundus photographs, for trying the lesson without the real data.

The pictures borrow the look of the PALM set, not its pixels: every eye is drawn from random numbers, from the
choroid up to the retinal vessels, and then photographed. Results on them mean nothing for real patients.

All parts are drawn for a left eye (disc on the left, macula to the right); half the finished pictures are mirrored.
Until the end a picture is three float32 planes [size, size], blue, green and red, from 0 to 1, because whole planes
compute several times faster than interleaved pixels.  Masks are float32 from 0 to 1, too.
"""

from dataclasses import dataclass

import cv2
import numpy as np

STEPS = 40  # points along a vessel


@dataclass(frozen=True)
class Eye:
    """The geometry of an eye, in pixels, and the severity of its disease."""

    size: int  # of the picture
    disc: np.ndarray  # centre (x, y) of the optic disc
    radius: float  # of the disc
    fovea: np.ndarray  # (x, y)
    tessellation: float  # 0 to 1
    crescent: float  # width of the peripapillary atrophy, in radii of the disc
    patches: int  # of chorioretinal atrophy


def draw_fundus(kind, rng, size=512):
    """Draw one fundus photograph.

    Args:
        kind: "N" normal, "H" high myopia without pathology, "P" pathological myopia.
        rng: a numpy Generator.
        size: pixels.

    Returns:
        The picture, uint8 BGR [size, size, 3], and the fovea, (x, y) in pixels.
    """
    eye = _eye(kind, rng, size)
    planes = _retina(eye, rng)
    if eye.tessellation:
        _tessellation(planes, eye, rng)
    _macula(planes, eye, rng)
    if eye.crescent:
        _atrophy(planes, np.maximum(_crescent(eye, rng), _patches(eye, rng)), eye, rng)
    _disc(planes, eye, rng)
    _vessels(planes, eye, rng)
    _camera(planes, rng)
    _field_of_view(planes, rng)
    image = cv2.merge([(255 * np.clip(plane, 0, 1)).astype(np.uint8) for plane in planes])
    x, y = map(float, eye.fovea)
    if rng.random() < 0.5:  # a right eye
        image, x = cv2.flip(image, 1), size - 1 - x
    return image, (x, y)


def _eye(kind, rng, size):
    left = rng.uniform(0.4, 0.5) if rng.random() < 0.2 else rng.uniform(0.1, 0.26)  # centred on disc or macula
    disc, radius = size * np.array([left, rng.uniform(0.43, 0.55)]), size * rng.uniform(0.062, 0.076)
    fovea = disc + radius * rng.uniform([4.7, 0.0], [5.3, 0.8])
    tessellation, crescent, patches = {
        "N": (0, 0, 0),
        "H": (rng.uniform(0.1, 0.4), rng.uniform(0.05, 0.25), 0),
        "P": (rng.uniform(0.5, 1.0), rng.uniform(0.5, 1.3), max(0, rng.integers(-2, 8))),
    }[kind]
    return Eye(size, disc, radius, fovea, tessellation, crescent, patches)


def _retina(eye, rng):
    """The bare retina: orange to brownish red, mottled, often with a greenish rim on one side."""
    blue, green, red = rng.uniform([0.16, 0.50, 0.52], [0.34, 0.64, 0.70])
    colour = red * np.array([blue - 0.08 * eye.tessellation, green - 0.08 * eye.tessellation, 1])
    mottle = 1 + 0.08 * _noise(rng, eye.size, 5) + 0.03 * _noise(rng, eye.size, 60)
    planes = [mottle * np.float32(value) for value in colour]
    rim = 1 - _glow(eye.size, eye.size * rng.uniform(0.35, 0.65, 2), 0.6 * eye.size)
    _paint(planes, rim * rim * np.float32(rng.uniform(0, 1.3)), red * np.array([0.34, 0.50, 0.48]))
    return planes


def _tessellation(planes, eye, rng):
    """Choroidal vessels showing through a thinned, paler retina: a web of orange bands with darker gaps."""
    count, centre = 150, (eye.disc + eye.fovea) / 2
    start = eye.size * rng.uniform(0, 1, (count, 2))
    heading = np.arctan2(*(start - centre).T[::-1]) + rng.normal(0, 0.6, count)
    length, width = eye.size * rng.uniform([[0.15], [0.004]], [[0.45], [0.012]], (2, count))
    large = _rasterize(_grow(rng, start, heading, rng.normal(0, 0.6, count), length, width, 0.5), eye.size)
    small = np.exp(-8 * _noise(rng, eye.size, 34) ** 2)  # too many to draw one by one
    bands = cv2.GaussianBlur(np.maximum(large, 0.5 * small), (0, 0), 0.004 * eye.size)
    strength = np.float32(eye.tessellation) * np.clip(0.7 + 0.35 * _noise(rng, eye.size, 5), 0, 1)
    mean = np.array([plane.mean() for plane in planes])
    _paint(planes, 0.6 * strength * _glow(eye.size, centre, 4 * eye.radius), mean * [0.8, 1.4, 1.7])
    _absorb(planes, strength * (1 - bands), [0.9, 0.8, 0.6])
    _paint(planes, 0.6 * strength * bands, mean * [0.2, 0.8, 1.9])


def _macula(planes, eye, rng):
    shade = 0.6 * _glow(eye.size, eye.fovea, 1.6 * eye.radius) + 0.4 * _glow(eye.size, eye.fovea, 0.55 * eye.radius)
    _absorb(planes, shade, rng.uniform(0.5, 0.9) * np.array([0.6, 0.6, 0.45]))


def _crescent(eye, rng):
    """Outline of the peripapillary atrophy, mostly temporal to the disc, as a mask."""
    centre = eye.disc + eye.radius * eye.crescent * rng.uniform([0.75, -0.3], [1.1, 0.3])
    return _ellipse(eye.size, centre, eye.radius * (1 + eye.crescent * rng.uniform([0.15, 0.3], [0.6, 0.8])), 0)


def _patches(eye, rng):
    """Outlines of the patches of atrophy in and around the macula, as a mask."""
    mask = np.zeros((eye.size, eye.size), np.float32)
    for _ in range(eye.patches):
        centre, axes = eye.fovea + eye.radius * rng.normal(0, 2, 2), eye.radius * rng.uniform(0.5, 1.8, 2)
        np.maximum(mask, _ellipse(eye.size, centre, axes, rng.uniform(0, 180)), out=mask)
    return mask


def _atrophy(planes, outlines, eye, rng):
    """Frayed areas of bare sclera, golden at the edge and pale inside, with clumps of pigment."""
    soft, halo = _soften(outlines, 0.22 * eye.radius), _soften(outlines, 0.6 * eye.radius)
    coarse, fine = _noise(rng, eye.size, 24), _noise(rng, eye.size, 110)
    mask = np.clip((soft - 0.5 + (0.2 * coarse + 0.08 * fine) * (soft > 0.02)) * 4 + 0.5, 0, 1)
    light = rng.uniform(0.9, 1.2)
    _paint(planes, np.maximum(0.5 * halo, 0.9 * mask), light * np.array([0.15, 0.45, 0.80]))
    pale = np.clip(1.3 * halo + 0.25 * coarse - np.float32(rng.uniform(0, 0.3)), 0, 1)
    _paint(planes, mask * pale, light * np.array([rng.uniform(0.25, 0.6), 0.78, 0.95]))
    pigment = np.clip(fine + coarse - 1, 0, 1) * mask * (1 - mask) * 4 + np.clip(fine - 1, 0, 1) * mask * 0.6
    _absorb(planes, np.minimum(pigment, 1), rng.uniform(0.2, 1.0) * np.array([0.85, 0.80, 0.70]))


def _disc(planes, eye, rng):
    """The optic disc, pink to yellow, with its pale cup and a faint halo."""
    axes, tilt = eye.radius * np.array([rng.uniform(0.8, 0.95), 1]), rng.uniform(-15, 15)
    disc = cv2.GaussianBlur(_ellipse(eye.size, eye.disc, axes, tilt), (0, 0), 0.05 * eye.radius)
    cup = _glow(eye.size, eye.disc + [0.2 * eye.radius, 0], eye.radius * rng.uniform(0.35, 0.6))
    light = rng.uniform(0.9, 1.15)
    _paint(planes, 0.3 * _glow(eye.size, eye.disc, 1.6 * eye.radius), light * np.array([0.2, 0.5, 0.9]))
    _paint(planes, 0.92 * disc, light * rng.uniform([0.20, 0.50, 0.98], [0.35, 0.62, 0.98]))
    _paint(planes, cup * np.float32(rng.uniform(0.6, 1.0)), light * np.array([0.6, 0.9, 1.0]))


def _vessels(planes, eye, rng):
    """Retinal vessels: the veins darker and wider than the arteries that run beside them."""
    for width, absorption in ((0.12, [0.6, 0.7, 0.42]), (0.085, [0.5, 0.6, 0.2])):
        trunks = _trunks(eye, rng, eye.radius * width)
        branches = _sprout(rng, trunks, 5)
        twigs = _sprout(rng, branches, 2)
        tree = [np.concatenate(parts) for parts in zip(trunks, branches, twigs)]
        mask = _rasterize(tree, eye.size, avoid=(eye.fovea, 0.7 * eye.radius))
        _absorb(planes, cv2.GaussianBlur(mask, (0, 0), 0.0012 * eye.size), absorption)


def _trunks(eye, rng, width):
    """Four arcades, the temporal two arching around the macula, and four small vessels from the disc's margin."""
    side = np.tile([-1, 1], 4)  # superior, inferior
    heading = side * np.repeat(np.radians([80, 125, 25, 160]), 2) + rng.normal(0, 0.12, 8)
    turn = -side * np.repeat(np.radians([80, -15, 10, 0]), 2) + rng.normal(0, 0.12, 8)
    length = eye.size * np.repeat([1.2, 0.7, 0.3, 0.35], 2) * rng.uniform(0.85, 1.1, 8)
    widths = width * np.repeat([1, 0.75, 0.35, 0.4], 2) * rng.uniform(0.85, 1.1, 8)
    outward = np.repeat([0, 0, 0.5, 0.5], 2) * [np.cos(heading), np.sin(heading)]
    start = eye.disc + eye.radius * (outward.T + rng.normal(0, 0.12, (8, 2)))
    return _grow(rng, start, heading, turn, length, widths, 0.25)


def _sprout(rng, parents, count):
    """`count` thinner branches from each vessel, to both sides, bending back towards its course."""
    points, headings, widths = (np.repeat(part, count, axis=0) for part in parents)
    n = len(points)
    fork = np.arange(n), rng.integers(STEPS // 6, STEPS - 3, n)
    side = rng.choice([-1, 1], n)
    length = rng.uniform(0.25, 0.6, n) * np.linalg.norm(points[:, -1] - points[:, 0], axis=1)
    return _grow(
        rng,
        points[fork],
        headings[fork] + side * rng.uniform(0.5, 1.0, n),
        -side * rng.uniform(0, 0.6, n),
        length,
        0.65 * widths[fork],
        0.3,
    )


def _grow(rng, start, heading, turn, length, width, tortuosity):
    """n tapering vessels from start [n, 2]; `turn` [n], in radians, is what the heading gains, most of it early.

    Returns their centre lines [n, STEPS, 2], headings [n, STEPS] and widths [n, STEPS].
    """
    t = np.linspace(0, 1, STEPS)
    wander = cv2.resize(rng.normal(0, tortuosity, (len(start), 6)), (STEPS, len(start)), interpolation=cv2.INTER_CUBIC)
    headings = heading[:, None] + turn[:, None] * (2 * t - t**2) + wander - wander[:, :1]
    strides = np.stack([np.cos(headings), np.sin(headings)], 2) * length[:, None, None] / STEPS
    return start[:, None] + strides.cumsum(1) - strides, headings, width[:, None] * (1 - 0.75 * t)


def _rasterize(vessels, size, avoid=((0, 0), 0)):
    """A mask of vessels as tapering ribbons, the thin ones faint; they end before a circle (centre, radius)."""
    points, headings, widths = vessels
    half = np.maximum(widths - 1, 0.1) / 2  # anti-aliasing adds a pixel
    across = np.stack([-half * np.sin(headings), half * np.cos(headings)], 2)
    left, right = (np.round(16 * (points + edge)).astype(np.int32) for edge in (across, -across))
    clear = np.linalg.norm(points - avoid[0], axis=2) >= avoid[1]
    reach = np.logical_and.accumulate(clear, axis=1).sum(1)
    calibre = widths[:, 0] / size
    mask = np.zeros((size, size), np.uint8)
    for k in np.argsort(calibre, kind="stable"):
        if reach[k] and calibre[k] > 0.001:  # the camera does not resolve thinner ones
            outline = np.concatenate([left[k, : reach[k]], right[k, : reach[k]][::-1]])
            cv2.fillPoly(mask, [outline], min(255, 64 + 39000 * calibre[k]), cv2.LINE_AA, shift=4)
    return mask.astype(np.float32) / 255


def _camera(planes, rng):
    """Uneven light, focus, haze and the noise of the sensor."""
    size = len(planes[0])
    light = _glow(size, size * rng.uniform(0.4, 0.6, 2), size * rng.uniform(0.55, 1.1))
    light *= np.float32(rng.uniform(0.9, 1.3))
    noise = np.float32(rng.uniform(0.015, 0.04)) * (rng.random((size, size), np.float32) - np.float32(0.5))
    blur, haze = size / 512 * rng.uniform(0.4, 1.4), rng.uniform(0, 0.12)
    for plane, veil in zip(planes, (0.22, 0.33, 0.45)):
        plane *= light
        cv2.GaussianBlur(plane, (0, 0), blur, dst=plane)
        plane *= np.float32(1 - haze)
        plane += noise + np.float32(haze * veil)


def _field_of_view(planes, rng):
    """The round aperture; some cameras lose a little of it at top and bottom."""
    size = len(planes[0])
    aperture = _ellipse(size, [size / 2, size / 2], size * rng.uniform([0.485, 0.49], [0.5, 0.52]), 0)
    aperture = cv2.GaussianBlur(aperture, (0, 0), size / 512)
    for plane in planes:
        plane *= aperture


def _ellipse(size, centre, axes, degrees):
    """A mask with one filled ellipse; `axes` are the half axes in pixels."""
    mask = np.zeros((size, size), np.float32)
    return cv2.ellipse(mask, (tuple(map(float, centre)), tuple(2.0 * np.array(axes)), degrees), 1.0, cv2.FILLED)


def _glow(size, centre, radius):
    """A mask with one Gaussian spot, the product of its profiles along x and y."""
    x, y = np.exp(-(((np.arange(size) - np.reshape(centre, (2, 1))) / radius) ** 2)).astype(np.float32)
    return np.outer(y, x)


def _noise(rng, size, cells):
    """Smooth noise [size, size] with a standard deviation near 1 and `cells` bumps along each side."""
    return cv2.resize(rng.standard_normal((cells, cells), np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def _soften(mask, sigma):
    """A wide blur, computed on a picture of a quarter of the size because that is quick."""
    small = cv2.resize(mask, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / 4), mask.shape, interpolation=cv2.INTER_LINEAR)


def _paint(planes, mask, colour):
    """Blend towards a colour, in place."""
    for plane, value in zip(planes, np.float32(colour)):
        change = value - plane
        change *= mask
        plane += change


def _absorb(planes, mask, shares):
    """Darken in place, taking away a share of blue, green and red."""
    for plane, share in zip(planes, np.float32(shares)):
        kept = -share * mask
        kept += 1
        plane *= kept
