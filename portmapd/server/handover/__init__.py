"""One process takes the place of another, without a moment in which nobody serves.

``predecessor`` is the process that serves, ``successor`` the one that it starts. They talk over a
pair of sockets::

    predecessor                               successor
    starts the same command             ->
                                              imports, reads its options, makes its log
                                        <-    ready: the versions of images that it reads
    serves nobody from now on
    image, with all descriptors         ->
                                              makes everything anew around them
                                        <-    prepared
    go                                  ->
                                              serves
                                        <-    serving
    ends

In place of each of its words the successor may say ``no``, and why. Until the last one the
predecessor can go on as if nothing had happened: it ends the successor, which has read from no
socket and written to none. What arrives meanwhile waits in the sockets, which both have. If the
predecessor is killed before it says ``go``, the successor serves all the same.
"""
