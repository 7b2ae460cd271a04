"""Maps of words: vectors in two dimensions as a picture, or as a page; and TensorBoard's projector."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seqexp.errors import UserError
from seqexp.files import make_folder, write_atomically
from seqexp.metrics.vector_space import Floats, unit

PICTURES = (".png", ".svg", ".html")
PROJECTIONS = ("tsne", "pca")
# Of t-SNE: neighbours that a word has in effect (van der Maaten & Hinton 2008 suggest 5 to 50).
PERPLEXITY = 30.0


def project(vectors: Floats, method: str, seed: int) -> npt.NDArray[np.float64]:
    """Return places (n, 2) of vectors (n, D) of length 1: their principal components, or t-SNE.

    Raises:
        UserError: there are fewer than three vectors.
    """
    if len(vectors) < 3:
        raise UserError(f"a map of {len(vectors)} words says nothing; give at least three words=.")
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    units = unit(vectors)
    if method == "pca":
        places = PCA(n_components=2, svd_solver="full").fit_transform(units)
    else:
        perplexity = min(PERPLEXITY, (len(units) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", metric="cosine", random_state=seed)
        places = tsne.fit_transform(units)
    return np.asarray(places, dtype=np.float64)


def write_map(target: Path, words: Sequence[str], vectors: Floats, method: str, seed: int) -> list[Path]:
    """Draw words at their places into a ``.png``, ``.svg`` or ``.html`` file; the page needs no network."""
    places = project(vectors, method, seed)
    title = f"{len(words):,} words by {'t-SNE' if method == 'tsne' else 'principal components'}"
    if target.suffix == ".html":
        write_atomically(target, _page(title, words, places).encode())
        return [target]
    from seqexp.tracking.plots import new_figure, save

    figure = new_figure(12, 9)
    axes = figure.subplots()
    axes.scatter(places[:, 0], places[:, 1], s=4, color="tab:blue", alpha=0.5)
    for word, (x, y) in zip(words, places, strict=True):
        axes.annotate(word, (x, y), fontsize=7, textcoords="offset points", xytext=(2, 2), parse_math=False)
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    save(figure, target)
    return [target]


def write_projector(target: Path, words: Sequence[str], vectors: Floats) -> list[Path]:
    """Write a folder that ``tensorboard --logdir`` shows in its projector, with the words as labels."""
    make_folder(target)
    tensors, labels, config = (
        target / name for name in ("tensors.tsv", "metadata.tsv", "projector_config.pbtxt")
    )
    write_atomically(
        tensors, "".join("\t".join(f"{x:.6g}" for x in vector) + "\n" for vector in vectors).encode()
    )
    write_atomically(labels, "".join(f"{word}\n" for word in words).encode())
    write_atomically(
        config,
        b'embeddings {\n  tensor_name: "words"\n  tensor_path: "tensors.tsv"\n'
        b'  metadata_path: "metadata.tsv"\n}\n',
    )
    return [tensors, labels, config]


def _page(title: str, words: Sequence[str], places: npt.NDArray[np.float64]) -> str:
    low, high = places.min(0), places.max(0)
    scaled = (places - low) / np.maximum(high - low, 1e-12) * [1200, 800]
    points = [
        {"w": word, "x": round(float(x), 1), "y": round(float(y), 1)}
        for word, (x, y) in zip(words, scaled, strict=True)
    ]
    # "</" would end the script.
    data = json.dumps(points, ensure_ascii=False).replace("<", "\\u003c")
    return PAGE.replace("TITLE", escape(title)).replace("POINTS", data)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title>
<style>
body { margin: 0; font: 14px sans-serif; } header { padding: 8px 12px; }
svg { width: 100vw; height: calc(100vh - 44px); cursor: grab; } text { fill: #223; } circle { fill: #36c; }
.found text { fill: #c30; font-weight: bold; } .found circle { fill: #c30; }
</style></head><body>
<header>TITLE · <label>find <input id="find" autocomplete="off"></label> · wheel: nearer, drag: move</header>
<svg id="map" xmlns="http://www.w3.org/2000/svg"></svg>
<script>
const points = POINTS;
const svg = document.getElementById("map"), find = document.getElementById("find");
let view = { x: -40, y: -40, w: 1320, h: 880 };
const marks = points.map(p => {
  const g = document.createElementNS(svg.namespaceURI, "g");
  const c = document.createElementNS(svg.namespaceURI, "circle");
  const t = document.createElementNS(svg.namespaceURI, "text");
  c.setAttribute("cx", p.x); c.setAttribute("cy", p.y); t.textContent = p.w;
  g.append(c, t); svg.append(g);
  return { p, g, c, t };
});
function draw() {
  svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
  const unit = view.w / 1320;  // the size of letters stays the same on the screen
  for (const m of marks) {
    m.c.setAttribute("r", 2 * unit); m.t.setAttribute("font-size", 11 * unit);
    m.t.setAttribute("x", m.p.x + 3 * unit); m.t.setAttribute("y", m.p.y - 2 * unit);
  }
}
svg.addEventListener("wheel", e => {
  e.preventDefault();
  const k = Math.exp(e.deltaY / 500), box = svg.getBoundingClientRect();
  const fx = (e.clientX - box.left) / box.width, fy = (e.clientY - box.top) / box.height;
  view = {
    x: view.x + view.w * fx * (1 - k), y: view.y + view.h * fy * (1 - k), w: view.w * k, h: view.h * k,
  };
  draw();
}, { passive: false });
svg.addEventListener("pointermove", e => {
  if (e.buttons !== 1) return;
  const box = svg.getBoundingClientRect();
  view.x -= e.movementX * view.w / box.width; view.y -= e.movementY * view.h / box.height;
  draw();
});
find.addEventListener("input", () => {
  const wanted = find.value.trim().toLowerCase();
  for (const m of marks) {
    const found = wanted !== "" && m.p.w.toLowerCase().startsWith(wanted);
    m.g.setAttribute("class", found ? "found" : "");
    if (found) svg.append(m.g);
  }
});
draw();
</script></body></html>
"""
