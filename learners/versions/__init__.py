"""Published versions: their files, their bytes on the wire, and the engine's store of them."""
