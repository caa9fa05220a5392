"""Program 100000, pure: who may do what, versions 2 to 4, dispatch and the reply cache."""
