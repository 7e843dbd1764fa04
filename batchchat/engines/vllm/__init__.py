"""`engine.kind: vllm`: vLLM's own engine computes, and takes its requests from our feed.

options   what a recipe sets
loading   a recipe as vLLM's arguments, and why it could not be started
sampling  a request's settings as vLLM's, and its log-probabilities as ours
forms     what an answer may go on with, where it must have a form
engine    draining the feed
"""
