"""`engine.kind: endpoint`: answers come from a server that speaks OpenAI's chat API.

options      what a recipe sets
address      the URL, and what may not be in it
body         a request as the JSON that the server reads
answer       what the server says as a completion
limits       headers that say when to come back
retry        what an attempt came to, and when it is made again
concurrency  how many requests are in flight
pace         requests and tokens a minute
cost         what was spent, and whether there is money for one more
traffic      which request is sent when: all of the above, without clock, thread or network
wire         HTTP over one connection
connection   one attempt over it
stream       an answer that comes in pieces
lines        threads that carry requests, each with a connection of its own
tokens       both of these by token ids
text         both of these for prompts that are no chats
batch_api    the provider's Batch API
batches      draining the feed by batches
engine       draining the feed
"""
