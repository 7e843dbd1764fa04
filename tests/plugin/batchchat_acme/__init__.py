"""A package that adds an engine, a row format, a source, a scorer and a writer to batchchat."""
