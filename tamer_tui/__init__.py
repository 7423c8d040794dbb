"""What the operator sees: a Textual application and commands over one Session."""

__version__ = "0.1.0"
