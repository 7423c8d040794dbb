"""What learns: the engine process and the stages it trains."""
