"""What a run leaves behind: folder, manifest, status, metrics, TensorBoard, plots."""
