"""The package as a user gets it: a wheel that carries its conf/, at work far from the clone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import TINY

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this clone, built without a network."""
    pytest.importorskip("hatchling")
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("the tests do not lie in a clone")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as pip puts it there."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile", "--quiet"]
    done = subprocess.run(
        [*command, "--target", str(folder), str(wheel)], capture_output=True, text=True, timeout=120
    )
    if "No module named pip" in done.stderr:
        pytest.skip("pip is not installed here")
    assert done.returncode == 0, done.stderr
    return folder


def run_installed(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the installed package, which comes before the clone on the path."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, "-m", "seqexp", *words],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_wheel_holds_code_and_options(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in (("conf", "seqexp/conf"), ("seqexp", "seqexp")):
        pattern = "**/*.yaml" if folder == "conf" else "**/*.py"
        files = {file.relative_to(ROOT / folder).as_posix() for file in (ROOT / folder).glob(pattern)}
        files = {file for file in files if not file.startswith("local/")}
        assert files, folder
        assert {f"{place}/{file}" for file in files} <= names
    assert not [name for name in names if name.startswith(("tests", "conf/", "seqexp/conf/local"))]
    assert [name for name in names if name.endswith("LICENSE")]


def test_an_installed_package_uses_its_own_options(installed: Path) -> None:
    done = run_installed(installed, "train", "model=gpt_course", "--info", "searchpath")
    assert done.returncode == 0, done.stderr
    assert str(installed / "seqexp" / "conf") in done.stdout + done.stderr
    assert str(ROOT / "conf") not in done.stdout + done.stderr


@pytest.mark.slow
def test_an_installed_package_trains_and_writes(installed: Path, book: Path) -> None:
    words = ("data=text", f"data.path={book}", *TINY, "name=installed")
    done = run_installed(installed, "train", *words)
    assert done.returncode == 0, done.stderr
    (run,) = Path("outputs/train/installed").iterdir()
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["n_embd"] == 32
    done = run_installed(
        installed, "generate", "run=latest", "prompt=The ", "generation.max_new_tokens=5", "device.threads=1"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The ")
