"""Typed configuration: one dataclass per conf group, and where the YAML files are found.

Nothing here imports torch: composing and checking a configuration must stay instant.
"""
