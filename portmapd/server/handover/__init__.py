"""One process takes the place of another, without a moment in which nobody serves.

``predecessor`` is the process that serves, ``successor`` the one that it starts. They talk over a pair
of sockets::

    predecessor                               successor
    offer: its version, defaults        ->
                                              imports, reads its options, makes its log
                                        <-    ready: the formats that it reads; or why it does not start
    stops: nothing is read any more
    state, and all descriptors          ->
                                              makes everything anew around them
                                        <-    prepared, or why it cannot
    go                                  ->    (or its end)
                                        <-    serving
    ends

Until the last line the predecessor can go on as if nothing had happened: it ends the successor, which
has read from no socket and written to none. What arrives meanwhile waits in the sockets, which both
have.
"""
