"""`python -m seqexp` is the same door as the `seqexp` command."""

from seqexp.cli import run

if __name__ == "__main__":
    run()
