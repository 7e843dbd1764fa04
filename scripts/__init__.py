"""Programs for those who build this, run from its folder."""
