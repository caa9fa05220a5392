"""Load that lasts, and hostile peers: does the server keep what it promises?"""
