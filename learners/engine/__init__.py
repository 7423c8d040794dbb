"""The engine process: threads, serving the operator, training in the background."""
