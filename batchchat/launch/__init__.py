"""Many replicas of one engine: an engine like any other, that hands requests out and takes completions back."""
