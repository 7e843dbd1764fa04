"""Shows on this machine that answers of servers and of vLLM are those of the model here, whatever happens meanwhile."""
