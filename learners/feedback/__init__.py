"""The live judgements as training data: samples, comparisons, targets, and the credit of taps."""
