"""Whether a model may be run in flight: what is tried when it is loaded."""
