"""Registration of the sweepers with Hydra."""

import sys
from types import ModuleType

from hydra.core.plugins import Plugins


def register_sweepers() -> None:
    """Register the sweepers in a module of ``hydra_plugins``, the only package that Hydra searches."""
    plugins = Plugins.instance()
    # Import after Plugins.instance(), which executes the module of the base class, Hydra's sweeper, again.
    from seqexp.sweeps.grid_sweeper import GridSweeper
    from seqexp.sweeps.optuna_sweeper import OptunaSweeper

    module = ModuleType("hydra_plugins.seqexp")
    for sweeper in (GridSweeper, OptunaSweeper):
        setattr(module, sweeper.__name__, sweeper)
        plugins.register(sweeper)
    sys.modules[module.__name__] = module
