"""The RPC language, pure bytes: XDR, messages, record marking, universal addresses."""
