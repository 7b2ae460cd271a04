"""What happens around the training loop, one concern a file; `base.py` names the points."""
