"""The viewer: chats, scores and comparisons of runs as one page that needs no server, or served while a run goes on."""
