"""Models: forward passes, and beside each the dataclass of its options.

Models know nothing of trainers, files or Hydra. Options (`*_options.py`) do not import torch, which keeps
composing and checking a configuration quick.
"""
