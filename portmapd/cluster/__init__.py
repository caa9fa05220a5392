"""One registry for many machines: what each of them shares, kept in etcd."""
