"""Models: forward passes, each with a dataclass of its options.

Models are independent of trainers, files and Hydra. Options (`*_options.py`) do not import torch, so that a
configuration is composed and checked quickly.
"""
