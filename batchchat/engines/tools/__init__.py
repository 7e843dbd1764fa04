"""Tools that really run, as an engine: a call is a request, and its result the completion."""
