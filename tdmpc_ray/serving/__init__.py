"""A trained agent behind HTTP, on Ray Serve: a plan per client session, batches across sessions."""
