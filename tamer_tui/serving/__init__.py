"""`tamer serve`: versions over HTTP as OpenAI's clients expect it, and feedback that becomes judgements. Needs the extra `serve`."""
