"""Messages of two compressors side by side, chosen at random, and what they are made of."""
