"""A client of etcd, over the JSON gateway of its API version 3 (etcd 3.4 and later)."""
