"""The tests: here without real sockets, in integration with them."""
