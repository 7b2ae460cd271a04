"""`seqexp export`: write the model of a run for other programs."""

import sys

from seqexp.commands.eval import run_name
from seqexp.commands.hydra_app import run_app
from seqexp.config.root import ExportConfig
from seqexp.errors import UserError
from seqexp.files import as_utf8, user_path


def main() -> None:
    run_app("export", lambda config, job: export(config), run_name)


def export(config: ExportConfig) -> list[str]:
    """Write the model; say what was written, and return the files.

    Raises:
        UserError: the run or the checkpoint is missing, the folder of the file does not exist, or the model
            cannot be written in this form.
    """
    from seqexp.commands.build import build_task, load_trained_run
    from seqexp.tracking.run_folder import find_run

    target = user_path(config.output)
    if not target.parent.is_dir():
        raise UserError(f"output={as_utf8(target)}: no folder {as_utf8(target.parent)}; make it first.")
    if target.is_dir() and config.format != "projector":
        raise UserError(f"output={as_utf8(target)} is a folder; name a file.")
    trained = load_trained_run(find_run(config.run), config.checkpoint, config.device)
    files = build_task(trained.config.task).export(trained.model, trained.preprocessor, target, config)
    for file in files:
        print(f"wrote {as_utf8(file)} ({file.stat().st_size:,} bytes), step {trained.step}", file=sys.stderr)
    return [str(file) for file in files]
