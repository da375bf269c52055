"""What comes before rewards: supervised fine-tuning of the compressor and of the predictor."""
