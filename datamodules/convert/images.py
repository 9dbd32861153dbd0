"""Names of images: annotation tools use addresses, data sets use file names."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from mmib.base.files import is_file
from mmib.datamodules.convert.posts import Notes

# Label Studio adds a prefix of eight hexadecimal digits to the name of an uploaded file.
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")


def looks_like_image(value: object) -> bool:
    """Whether a value is the address of an image, judged by its ending."""
    return isinstance(value, str) and _path(value).lower().endswith(SUFFIXES)


def image_name(address: str, folder: Path | None, place: str, notes: Notes) -> str:
    """Return the name of an image.

    Args:
        address: its address in a tool: a path, a URL, or a file of Label Studio's local storage.
        folder: folder of the images; None uses the last part of the address.
        place: location of the post.
        notes: records images that are embedded in the file, or missing from the folder.

    Returns:
        Its name below the folder, or an empty string.
    """
    if address.startswith("data:"):
        notes.add("images that are part of the file itself: left out", place)
        return ""
    path = _path(address).lstrip("/")
    name = path.rpartition("/")[2]
    if folder is None:
        return name
    for candidate in (path, name, UPLOAD_PREFIX.sub("", name)):
        if candidate and is_file(folder / candidate):
            return candidate
    notes.add(f"images that are not in {folder}: their posts keep the name", place)
    return name


def _path(address: str) -> str:
    """The path of an address, with forward slashes."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    if parts.path.endswith("/local-files/"):
        path = parse_qs(parts.query).get("d", [""])[0]
    elif parts.scheme and parts.netloc:
        path = unquote(parts.path)
    else:
        path = address
    return path.replace("\\", "/")
