"""HTTP/2 and gRPC, server side: frames and windows without sockets, and calls on top of them.

Start reading at `connection` (the protocol, no I/O), then `line` (one connection in the event
loop) and `call` (what a handler of ours sees of gRPC).
"""
