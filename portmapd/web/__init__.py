"""The port mapper over HTTP: the status page, listings, metrics. It changes nothing.

It is imported only where an endpoint is given for it.
"""
