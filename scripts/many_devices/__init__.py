"""Shows on this machine that many devices give the answers of one, whatever happens to them meanwhile."""
