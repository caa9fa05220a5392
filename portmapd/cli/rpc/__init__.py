"""``portmapctl rpc``: what rpcinfo does, with any port mapper, on this host or another one."""
