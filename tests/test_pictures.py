"""Pictures: the format that a name asks for, signs of every language, legends beside the plot."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from conftest import Ran
from matplotlib import font_manager
from run_folders import SWEEP, make_run

from seqexp.reports.figures import comparison_figures
from seqexp.reports.frame import compare
from seqexp.tracking import plots
from seqexp.tracking.catalog import find

Main = Callable[..., Ran]

MAGIC = {"png": b"\x89PNG\r\n", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("name", ["at.png", "at.svg", "at.pdf", "AT.PDF"])
def test_the_suffix_names_the_format(run_main: Main, nmt_run: Path, name: str) -> None:
    ran = run_main("generate", f"run={nmt_run}", "text=She is well.", f"attention={name}", "device.threads=1")
    assert ran.code == 0, ran.err
    kind = name.partition(".")[2].lower()
    assert Path(name).read_bytes().startswith(MAGIC[kind])


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_the_same_picture_is_the_same_file(kind: str) -> None:
    def draw() -> bytes:
        return plots.rendered(plots.attention_figure(np.eye(2), ["a", "b"], ["c", "d"], "t"), kind)

    assert draw() == draw()


def chinese(text: str = "我爱北京") -> "matplotlib.figure.Figure":
    return plots.attention_figure(np.eye(len(text)), list(text), list(text), "title")


@pytest.fixture
def only_dejavu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system without fonts for Chinese, in which nothing was noted yet."""
    kept = [entry for entry in font_manager.fontManager.ttflist if entry.name.startswith("DejaVu")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", kept)
    plots._note_missing.cache_clear()
    yield
    plots._note_missing.cache_clear()


@pytest.mark.usefixtures("only_dejavu")
def test_signs_that_no_font_has_are_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for text in ("我爱北京", "东西"):
            plots.rendered(chinese(text))
    assert len(caplog.records) == 1
    assert "CJK" in caplog.text
    assert "boxes" in caplog.text


@pytest.mark.usefixtures("only_dejavu")
def test_a_font_of_the_system_is_fallen_back_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a font of our own making, that has four signs."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    names = [".notdef", *(f"u{ord(sign):04X}" for sign in "我爱北京")]
    pen = TTGlyphPen(None)
    for i, point in enumerate(((100, 0), (100, 700), (800, 700), (800, 0))):
        (pen.lineTo if i else pen.moveTo)(point)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(name[1:] and chr(int(name[1:], 16))): name for name in names[1:]})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Noto Sans CJK Test", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "test.ttf")
    font_manager.fontManager.addfont(tmp_path / "test.ttf")
    with caplog.at_level(logging.WARNING):
        figure = chinese()
        plots.rendered(figure)
        assert caplog.text == ""
        assert any(
            "Noto Sans CJK Test" in text.get_fontfamily() for text in figure.findobj(matplotlib.text.Text)
        )
        plots.rendered(chinese("我东"))
    assert "CJK" in caplog.text


# The legend of a comparison


def figures_of(label: str, count: int) -> "dict[str, matplotlib.figure.Figure]":
    for i in range(count):
        make_run(
            SWEEP / f"{i}_a", losses=(2.0, 1.5), data__path=f"{label}{i}.txt", optimizer__lr=0.1 * (i + 1)
        )
    runs = [entry for path in sorted(SWEEP.iterdir()) for entry in find(str(path))]
    return comparison_figures(compare(runs), x="optimizer.lr", hue=["data.path"])


@pytest.mark.parametrize("length", [1, 40, 200])
@pytest.mark.parametrize("count", [2, 6, 15])
def test_a_legend_covers_no_plot(length: int, count: int) -> None:
    """But where it is short and has few lines, for which there is room in a corner."""
    for figure in figures_of("x" * length, count).values():
        figure.draw_without_rendering()
        (axes,) = figure.axes
        legends = [*figure.legends, *([axes.get_legend()] if axes.get_legend() else [])]
        (legend,) = legends
        box, plot = legend.get_window_extent(), axes.get_window_extent()
        if length > 1 or count > 4:
            assert not box.overlaps(plot)
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0
        assert plot.height > 250
        texts = [text.get_text() for text in legend.get_texts()]
        assert len(set(texts)) == count
        assert all(len(text) <= 100 for text in texts)
