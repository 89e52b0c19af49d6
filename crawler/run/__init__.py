"""A run: the parts put together, from a request to blocks in the store and an answer."""
