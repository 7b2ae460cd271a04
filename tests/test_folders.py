"""Files and dangling links where folders should be, folders of any name, and a study that is damaged."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Ran

Main = Callable[..., Ran]

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = (
    "data=parity", "model=rnn", "data.seq_len=8", "trainer.max_steps=2", "trainer.eval_every=1",
    "trainer.sample_tokens=0", "data.eval_sequences=20", "device.threads=1",
)  # fmt: skip
SEARCH = ("train", "-m", "sweep=optuna", *QUICK, "sweep.name=s", "sweep.n_trials=2", "sweep.pruner=median",
          "optimizer.lr=interval(0.001,0.1)")  # fmt: skip


def dangle(place: Path) -> None:
    place.symlink_to(Path.cwd() / "nowhere/at/all")


def block(place: Path) -> None:
    place.write_text("a file")


def circle(place: Path) -> None:
    place.symlink_to(place.name)


def test_a_working_folder_whose_name_is_not_utf8(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.fsdecode(b"caf\xe9"))
    folder.mkdir()
    monkeypatch.chdir(folder)
    ran = run_main("train", *QUICK)
    assert ran.code == 2, ran.err
    assert "the name of this folder is not UTF-8" in ran.err.splitlines()[-1]
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("in_the_way", [dangle, block, circle])
@pytest.mark.parametrize("place", ["outputs", "outputs/{0}", "outputs/{0}/x"])
@pytest.mark.parametrize("command", ["train", "eval", "generate"])
def test_what_stands_where_a_folder_should_be(
    run_main: Main, tiny_run: Path, command: str, place: str, in_the_way: Callable[[Path], None]
) -> None:
    path = Path(place.format(command))
    path.parent.mkdir(parents=True, exist_ok=True)
    in_the_way(path)
    words = QUICK if command == "train" else (f"run={tiny_run}", "device.threads=1")
    ran = run_main(command, "name=x", *words)
    assert ran.code == 2, ran.err
    line = ran.err.splitlines()[-1]
    assert "cannot be made" in line
    assert f"{path} is " in line or in_the_way is circle
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("place", ["outputs", "outputs/sweeps", "outputs/sweeps/s"])
@pytest.mark.parametrize("words", [(), ("sweep=optuna", "sweep.n_trials=1")])
def test_what_stands_where_a_sweep_should_be(run_main: Main, place: str, words: tuple[str, ...]) -> None:
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    dangle(Path(place))
    ran = run_main("train", "-m", *QUICK, "seed=1,2", "sweep.name=s", *words)
    assert ran.code == 2, ran.err
    assert "nowhere/at/all" in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err
    assert "UserWarning" not in ran.err


def test_a_job_whose_folder_is_a_file(run_main: Main) -> None:
    assert run_main("train", "-m", *QUICK, "seed=1,2", "sweep.name=s").code == 0
    first = next(Path("outputs/sweeps/s").glob("0_*"))
    shutil.rmtree(first)
    dangle(first)
    ran = run_main("train", "-m", *QUICK, "seed=1,2", "sweep.name=s")
    assert ran.code == 1
    assert "1 failed" in ran.err
    assert not Path("nowhere").exists()
    assert "nowhere/at/all" in ran.err


def test_a_cache_that_cannot_be(run_main: Main, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dangle(Path("cache"))
    monkeypatch.setenv("SEQEXP_CACHE", "cache/deep")
    ran = run_main("train", "data=text", f"data.path={book}", *TINY)
    assert ran.code == 2
    assert "SEQEXP_CACHE" in ran.err.splitlines()[-1]


# Optuna's study


@pytest.mark.parametrize(
    "name",
    [
        'it\'s "q" {y}',
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("x{y}", "x?y=1&z", "x#y", "x%41y", "a b", "ü 日本", 'it\'s "q"', "back\\slash")
        ),
    ],
)
def test_a_search_in_a_folder_of_any_name(
    run_main: Main, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    ran = run_main(*SEARCH)
    assert ran.code == 0, ran.err
    assert [file.relative_to(tmp_path / name) for file in tmp_path.rglob("study.db")] == [
        Path("outputs/sweeps/s/study.db")
    ]
    assert {path.name for path in tmp_path.iterdir()} == {name}
    ran = run_main("compare", "outputs/sweeps/s")
    assert ran.code == 0
    assert "history.png" in ran.err


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    from conftest import _main, _stand_clean

    place = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _stand_clean(monkeypatch, cache_folder, place)
        assert _main(*SEARCH).code == 0
    return place / "outputs/sweeps/s"


def garbage(file: Path) -> None:
    file.write_bytes(b"this is no database")


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])


def overwritten(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[5000:60_000] = b"\xa5" * 55_000
    file.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [garbage, *(pytest.param(one, marks=pytest.mark.slow) for one in (empty, cut, overwritten))]
)
def test_a_damaged_study(run_main: Main, searched: Path, damage: Callable[[Path], None]) -> None:
    sweep = shutil.copytree(searched, Path("outputs/sweeps/s"))
    damage(sweep / "study.db")
    for command, made in (("compare", "compare/curves.png"), ("report", "report.html")):
        (sweep / made).unlink(missing_ok=True)
        ran = run_main(command, sweep)
        assert ran.code == 0, ran.err
        assert (sweep / made).is_file()
        assert "study.db cannot be used" in ran.err
        assert "Traceback" not in ran.err
    if damage is not empty:  # which is where every search begins
        damage(sweep / "study.db")
        ran = run_main(*SEARCH)
        assert ran.code == 2, ran.err
        line = ran.err.splitlines()[-1]
        assert "study.db cannot be used" in line
        assert "sweep.name" in line
        assert "Traceback" not in ran.err


def test_a_search_whose_folder_was_renamed(run_main: Main, searched: Path) -> None:
    shutil.copytree(searched, Path("outputs/sweeps/renamed"))
    ran = run_main("compare", "outputs/sweeps/renamed")
    assert ran.code == 0, ran.err
    assert "history.png" in ran.err
