"""`seqexp eval vectors=<file>`: judge word vectors of any origin as those of a run are judged."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqexp.config.root import EvalConfig, to_plain
from seqexp.errors import UserError
from seqexp.files import number as finite
from seqexp.files import user_path

if TYPE_CHECKING:
    from seqexp.tasks.base import Table


def evaluate_vectors(config: EvalConfig) -> "tuple[dict[str, Any], list[Table]]":
    """Evaluate the vectors of a file, write ``result.json``, and return it with its tables.

    Raises:
        UserError: the file or a list cannot be read, or the file has no vectors.
    """
    import numpy as np

    from seqexp.commands.eval import recorded
    from seqexp.data.vectors import read_vectors
    from seqexp.metrics.vector_space import VectorSpace
    from seqexp.tasks.base import Evaluation
    from seqexp.tasks.word_vector_report import add_report, report_tables
    from seqexp.tracking.manifest import environment
    from seqexp.tracking.run_folder import RunFolder

    assert config.vectors is not None
    file = user_path(config.vectors)
    most = config.generation.max_words
    found = read_vectors(config.vectors, None, config.vector_words, most=most)
    if len(found) < 2:
        raise UserError(f"vectors={config.vectors} has {len(found)} vectors; two are needed.")
    space = VectorSpace(list(found), np.stack(list(found.values())))

    def more(words: Any) -> dict[str, Any]:
        # Only files of fastText make vectors of words that they do not list.
        wanted = {word.lower() for word in words}
        made = read_vectors(config.vectors or "", wanted, makes_only=True)
        return {word: made[word.lower()] for word in words if word.lower() in made}

    evaluation = Evaluation()
    add_report(evaluation, config.lists, space, more)
    folder = RunFolder.create("eval", config.name)
    with recorded(folder):
        with file.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        source = {"path": str(file.absolute()), "sha256": sha256, "words": len(space.words)}
        folder.write_config(to_plain(config))
        folder.write_manifest({"command": "eval", **environment(), "vectors": source})
        tables = report_tables(evaluation.details)
        details = {name: metric.to_plain() for name, metric in evaluation.items()}
        result: dict[str, Any] = {
            "command": "eval",
            "title": f"{Path(config.vectors).name}, {len(space.words):,} words",
            "vectors": source,
            "metrics": {name: finite(metric.value) for name, metric in evaluation.items()},
            "details": details,
            "rows": [{"metrics": details}],
            **evaluation.details,
            "tables": [asdict(table) for table in tables],
            "notes": evaluation.notes,
            "skipped": [],
            "stand_in": None,
        }
        folder.write_result(result)
    return result, tables
