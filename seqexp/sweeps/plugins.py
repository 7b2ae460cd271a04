"""Our sweepers, where Hydra looks for them."""

import sys
from types import ModuleType

from hydra.core.plugins import Plugins


def register_sweepers() -> None:
    """Hydra takes sweepers from the package ``hydra_plugins`` alone, so they get a module there."""
    plugins = Plugins.instance()
    # Only now: looking for plugins, Hydra executes the module of its own sweeper, our base class, once more.
    from seqexp.sweeps.grid_sweeper import GridSweeper
    from seqexp.sweeps.optuna_sweeper import OptunaSweeper

    module = ModuleType("hydra_plugins.seqexp")
    for sweeper in (GridSweeper, OptunaSweeper):
        setattr(module, sweeper.__name__, sweeper)
        plugins.register(sweeper)
    sys.modules[module.__name__] = module
