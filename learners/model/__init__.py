"""The language model: loading, replicas that share its weights, LoRA, chat format, forwards and sampling."""
