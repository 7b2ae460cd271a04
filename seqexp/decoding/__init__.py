"""Generate text: sampling, beam search and ensembles, over the interface of `start`, `step` and `select`."""
