"""Names of images: annotation tools use addresses, data sets use file names."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from urllib.parse import parse_qs, unquote, urlsplit

from mmib.base.files import is_file
from mmib.datamodules.convert.posts import Notes
from mmib.datamodules.image_names import split_ending

# Label Studio adds a prefix of eight hexadecimal digits to the name of an uploaded file.
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")


def looks_like_image(value: object) -> bool:
    """Whether a value is the address of an image, judged by its ending."""
    return isinstance(value, str) and bool(split_ending(_path(value))[1])


def image_name(address: str, folder: Path | None, place: str, notes: Notes) -> str:
    """Return the name of an image.

    Args:
        address: its address in a tool: a path, a URL, or a file of Label Studio's local storage.
        folder: folder of the images; None uses a relative path as it is, and the last part of any other address.
        place: location of the post.
        notes: records images that are embedded in the file, or missing from the folder.

    Returns:
        Its name below the folder, or an empty string.
    """
    if address.startswith("data:"):
        notes.add("images inside the file itself: left out", place)
        return ""
    path = _path(address).lstrip("/")
    last = path.rpartition("/")[2]
    kept = path if _is_relative(address) else last
    if folder is None:
        return kept
    for candidate in (path, last, UPLOAD_PREFIX.sub("", last)):
        if candidate and is_file(folder / candidate):
            return candidate
    notes.add(f"images not in {folder}: their posts keep the name", place)
    return kept


def _is_relative(address: str) -> bool:
    """Whether an address is a path below the folder of the images, such as `a/1.jpg`."""
    path = PureWindowsPath(address)  # with either slash
    return not path.anchor and ".." not in path.parts and "://" not in address


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
