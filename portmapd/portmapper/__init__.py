"""Program 100000, pure: who may do what, versions 2, 3 and 4, dispatch."""
