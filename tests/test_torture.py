"""The short form of scripts/torture.py: each model survives a kill in each window."""

import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).parents[1] / "scripts/torture.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["lstm", "gpt", "gru", "transformer", "textcnn", "birnn", "lstm_tagger", "bert"]
)
def test_three_kills(model: str) -> None:
    words = [sys.executable, str(TORTURE), model, "--kills", "3", "--steps", "100", "--no-record"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("inside a") == 3
    assert '"differences": []' in done.stdout
