"""Options of low-rank updates (`training/lora.py`)."""

from dataclasses import asdict, dataclass, field

from seqexp.config.checks import check_range, check_rule


@dataclass
class LoRAConfig:
    """Updates of rank `rank` (0: none), times `alpha` / `rank`, of the linear layers that match `layers`."""

    rank: int = 0
    alpha: float = 16.0
    layers: list[str] = field(default_factory=lambda: ["*"])

    def __post_init__(self) -> None:
        check_range("model.lora.rank", self.rank, 0, 100_000)
        check_range("model.lora.alpha", self.alpha, above=0)
        check_rule(bool(self.layers), "model.lora.layers=[] has no layers; leave it out for all of them.")

    def without_effect(self) -> list[str]:
        """Notes on settings that rank 0 does not read."""
        if self.rank or self == LoRAConfig():
            return []
        return ["model.lora.alpha and model.lora.layers have no effect with model.lora.rank=0"]


# The settings without updates, as a saved configuration has them.
NO_LORA = asdict(LoRAConfig())
