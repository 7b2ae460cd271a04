"""Typed configuration: one dataclass per conf group, and the search path of the YAML files.

No module here imports torch, so that a configuration is composed and checked without delay.
"""
