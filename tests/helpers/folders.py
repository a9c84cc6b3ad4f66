"""Folders of images: one for each class."""

import cv2


def name_bytes(folder, image):
    """The names of a folder and an image: no picture, for what does not look into the files."""
    return f"{folder} {image}".encode("utf-8", "surrogateescape")


def encoded(img, suffix=".jpg", *options):
    return cv2.imencode(suffix, img, options)[1].tobytes()


def write_folders(root, counts, content=name_bytes, suffix=".jpg"):
    """Write files 0.jpg, 1.jpg, ... into folders, {folder: number}; return the directory.

    `content(folder, image)` gives the bytes of a file, for the name of the folder and the number of the image.
    """
    for folder, number in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for image in range(number):
            (root / folder / f"{image}{suffix}").write_bytes(content(folder, image))
    return root
