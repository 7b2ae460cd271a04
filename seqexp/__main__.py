"""`python -m seqexp` runs the `seqexp` command."""

from seqexp.cli import run

if __name__ == "__main__":
    run()
