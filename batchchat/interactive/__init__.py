"""The interactive chat: one conversation, answered turn by turn through the same prompts, sampler and engines as a run.

opening       from the command line to a recipe
conversation  what was said, and which batch run writes the same answers
responder     one engine for the whole conversation: a question in, an answer out, token by token
session       what a line that was typed does; commands has the commands
files         save, load and export
terminal      the keys; view and markdown draw the answer
pipe          one question from standard input, one answer to standard output
"""
