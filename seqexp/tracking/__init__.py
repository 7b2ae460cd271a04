"""Records of a run: folder, manifest, status, metrics, TensorBoard, plots."""
