"""Scored words on a terminal: in colour, or with numbers behind them if it has no colours."""

from typing import TYPE_CHECKING

from seqexp.quoting import printable
from seqexp.scored_text import ScoredText, colours

if TYPE_CHECKING:
    from rich.text import Text


def coloured(scored: ScoredText) -> "Text":
    """Return a text of rich whose words are coloured by their scores."""
    from rich.text import Text

    text = Text()
    for piece, share in scored.pieces():
        chosen = colours(share)
        text.append(printable(piece), style=f"{chosen[1]} on {chosen[0]}" if chosen else "")
    return text


def beside(scored: ScoredText, terminal: bool) -> str:
    """Return what is printed after a prediction: lines in colour, or after a tab the words with scores.

    `terminal` says whether the output goes to standard output, which may be a terminal with colours.
    """
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    if not terminal or console.color_system is None or console.no_color:
        return "\t" + printable(scored.plain())
    with console.capture() as captured:
        console.print(coloured(scored))
        console.print(printable(scored.title), style="dim", markup=False)
        console.print(printable(scored.strongest()), style="dim", markup=False)
    return "\n" + captured.get().rstrip("\n")
