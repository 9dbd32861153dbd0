"""Downloads: pooch verifies and stores files; gdown transfers them, also from Google Drive, and resumes transfers."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmib.base.files import named
from mmib.datamodules.fetch.manifest import Download
from mmib.schema import ConfigError, DataError

PACKAGES = ("gdown", "pooch")
# Seconds without data after which a connection counts as lost, and the number of retries within one call.
TIMEOUT = 60
RETRIES = 3
NOT_FOUND, TOO_MANY_REQUESTS = 404, 429
WEB_PAGE = (b"<!doctype html", b"<html")


def require_packages() -> None:
    """Check that the packages of the extra `data` are installed.

    Raises:
        ConfigError: a package is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"fetch-data downloads with {' and '.join(missing)}, not installed here: install it with "
            "`pip install 'mmib[data]'`"
        )


def download(wanted: Download, folder: Path, mirrors: Iterable[str] = ()) -> Path:
    """Download and verify a file, unless a complete one exists already.

    Args:
        wanted: the file.
        folder: folder for the file and for parts of interrupted transfers.
        mirrors: addresses to try before the authors' address.

    Returns:
        Path of the file.

    Raises:
        DataError: no address provides the file; the message gives the reason for each.
        OSError: the file cannot be written.
    """
    import pooch  # noqa: PLC0415
    import requests  # noqa: PLC0415
    from gdown.exceptions import DownloadError  # noqa: PLC0415

    pooch.get_logger().setLevel("WARNING")
    path = folder / wanted.file
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for address in (*(f"{mirror.rstrip('/')}/{wanted.file}" for mirror in mirrors), wanted.address):
        try:
            with named(path):
                pooch.retrieve(address, wanted.sha256, path.name, path.parent, downloader=_transfer)
        except requests.HTTPError as error:
            failures.append(f"{address}: {_refusal(error.response)}")
        except (requests.ConnectionError, requests.Timeout) as error:
            failures.append(f"{address}: no connection, or a cut one ({' '.join(str(error).split())})")
        except (requests.RequestException, DownloadError) as error:
            failures.append(f"{address}: {' '.join(str(error).split())}")
        except ValueError:  # raised by pooch, which has removed the file
            failures.append(f"{address}: another file than the released one, by its SHA-256; it is not kept")
        else:
            return path
    raise DataError(
        f"{wanted.file} could not be downloaded from {'; '.join(failures)}. Run the command again, which resumes what "
        f"was cut; name another address with --mirror; or download the file with a browser and save it as {path}"
    )


def _transfer(address: str, file: str, _: Any) -> None:
    """Download an address into a file; called by pooch as its downloader.

    Raises:
        gdown.exceptions.DownloadError: the transfer is interrupted, or the content is a web page.
        requests.RequestException: there is no connection, or the server refuses.
    """
    import gdown  # noqa: PLC0415
    from gdown.exceptions import DownloadError  # noqa: PLC0415

    # Partial files are kept per address: the file of another address may have other bytes.
    part = Path(file).parent / f".{hashlib.sha256(address.encode()).hexdigest()[:16]}"
    print(f"mmib: {address}", file=sys.stderr, flush=True)  # noqa: T201
    gdown.download(
        url=address,
        output=str(part),
        resume=True,
        use_cookies=False,
        timeout=TIMEOUT,
        retries=RETRIES,
        log_messages={"start": "", "output": ""},
    )
    with part.open("rb") as content:
        beginning = content.read(1024).lstrip().lower()
    if beginning.startswith(WEB_PAGE):
        part.unlink()
        raise DownloadError(
            "a web page came in place of the file, such as one to log in, or one that says that it was downloaded too "
            "often"
        )
    part.replace(file)


def _refusal(response: Any) -> str:
    """The reason why a server refused a file."""
    if response.status_code == NOT_FOUND:
        return f"the file is not there (status {NOT_FOUND})"
    if response.status_code == TOO_MANY_REQUESTS:
        wait = response.headers.get("Retry-After", "")
        later = f"in {wait} seconds" if wait.isdecimal() else "later"
        return f"too many requests (status {TOO_MANY_REQUESTS}); try again {later}"
    return f"status {response.status_code} {response.reason}"
