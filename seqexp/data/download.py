"""Fetch a public file once: progress, retries, checksum, cache (all by pooch)."""

import logging
from pathlib import Path

from seqexp.data.cache import cache_dir
from seqexp.errors import UserError

RETRIES = 2
TIMEOUT_SECONDS = 30


def download(url: str, sha256: str, name: str, instead: str = "") -> Path:
    """The cached file `name` with this sha256, downloaded from `url` if it is not there.

    `instead` says what else a user can do; the default is to give the file as ``data.path=``.

    Raises:
        UserError: the address cannot be reached, or what it gives is another file.
    """
    import pooch
    import requests

    folder = cache_dir("downloads")
    store = pooch.create(
        path=folder,
        base_url="",
        registry={name: sha256},
        urls={name: url},
        retry_if_failed=RETRIES,
    )
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        fetched = store.fetch(
            name, downloader=pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT_SECONDS)
        )
    except requests.RequestException as error:
        otherwise = instead or f"give the file as data.path=, or put it at {folder / name}"
        reason = f"{error.response.status_code}" if error.response is not None else "no connection"
        raise UserError(
            f"{url} could not be downloaded ({reason}). Fetch it on a machine with a connection and "
            f"{otherwise}."
        ) from error
    except ValueError as error:  # pooch's word for a wrong checksum
        raise UserError(
            f"{url} is not the file expected (sha256 {sha256[:12]}…); "
            f"{instead or 'give a copy as data.path='}."
        ) from error
    return Path(fetched)
