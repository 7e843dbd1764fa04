"""`engine.kind: vllm`: vLLM's own engine computes, and takes its requests from our feed.

options   what a recipe sets
loading   a recipe as vLLM's arguments, and why it could not be started
sampling  a request's settings as vLLM's, and its log-probabilities as ours
engine    draining the feed
"""
