"""A version as others run it: one model with the adapter in it, as a directory, a GGUF file, or a model for Ollama."""
