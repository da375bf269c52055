"""The models of a run: loading, prompts, the compressor, the predictor, the scorer and the embedded miniature."""
