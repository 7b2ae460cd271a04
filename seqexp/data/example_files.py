"""Find the files of data sets of examples: those that are named, or those of a known data set."""

from dataclasses import fields
from pathlib import Path

from seqexp.config.example_files import ExampleFilesConfig
from seqexp.data.download import download
from seqexp.data.sources import shown_places, usual_places
from seqexp.errors import UserError
from seqexp.files import as_utf8, user_path

SPLITS = ("train", "val", "test")


def find_split_files(config: ExampleFilesConfig, kind: str = "") -> tuple[dict[str, Path], str]:
    """Return the files of the splits that have one, and where they come from.

    The settings are `path`, `val_path`, … and `train_file`, …; with the kind ``label_`` they are
    `label_path`, `val_label_path`, … and `train_label_file`, ….

    Raises:
        UserError: a file does not exist.
    """
    if config.path is None:
        place, origin = _find_folder(config)
        keys = {split: f"{split}_{kind}file" for split in SPLITS}
    else:
        # Where the user stands; paths may be absolute.
        place, origin = Path(), f"data.path={config.path}"
        keys = {"train": f"{kind}path", "val": f"val_{kind}path", "test": f"test_{kind}path"}
    found = {}
    for split, key in keys.items():
        name = getattr(config, key)
        if name is None:
            continue
        path = place / user_path(name)
        if not path.exists():
            said = f"data={config.name}" if config.path is None else f"data.{key}"
            raise UserError(f"{said}: there is no {as_utf8(path)} (seen from {as_utf8(Path.cwd())}).")
        found[split] = path
    return found, origin


def _find_folder(config: ExampleFilesConfig) -> tuple[Path, str]:
    """Return the folder with the files of a known data set, and where they come from.

    Raises:
        UserError: they are neither there nor can be downloaded.
    """
    assert config.folder is not None
    assert config.train_file is not None
    for place in map(Path, usual_places(config.folder)):
        if (place / config.train_file).is_file():
            return place, as_utf8(place)
    if config.url is not None:
        return _download_folder(config), config.url
    raise UserError(
        f"data={config.name}: {config.train_file} was not found in {shown_places(config.folder)}. "
        f"Get it from {config.source}, put its files there, or give data.path=."
    )


def _download_folder(config: ExampleFilesConfig) -> Path:
    """Return the folder with the downloaded files of a known data set."""
    instead = f"give data.path=, or put the files of {config.source} into data/{config.folder}/"
    names = [str(getattr(config, one.name)) for one in fields(config) if one.name.endswith("_file")]
    files = [
        download(f"{config.url}{name}", config.sha256[name], f"{config.name}/{name}", instead)
        for name in names
        if name in config.sha256
    ]
    return files[0].parent
