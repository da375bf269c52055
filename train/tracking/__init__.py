"""What a run writes of itself while it trains."""
