"""Writing to etcd what this machine shares."""

from __future__ import annotations

from collections.abc import Sequence

from portmapd.cluster.entry import Layout
from portmapd.cluster.lease import Lease
from portmapd.cluster.published import Published
from portmapd.errors import EtcdError
from portmapd.etcd.client import EtcdClient
from portmapd.etcd.messages import Delete, Operation, Put, Transaction

#: The most entries of one transaction: etcd takes 128 operations.
BATCH = 100


class Publisher:
    """Writes entries, a batch at a time.

    :param etcd: the client of etcd.
    :param layout: the keys of the cluster.
    :param host: what this machine is called there.
    :param lease: the lease under which it writes.
    :param published: what it shares.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        layout: Layout,
        host: str,
        lease: Lease,
        published: Published,
    ) -> None:
        self._etcd = etcd
        self._layout = layout
        self._host = host
        self._lease = lease
        self._published = published

    async def write(self) -> None:
        """Write everything that is to be written.

        :raises EtcdError: it could not be done; what is left is to be written still.
        """
        while self._published and self._lease.number:
            batch = self._published.take(BATCH)
            lease = self._lease.number
            operations: list[Operation] = [
                Delete(key) if value is None else Put(key, value, lease)
                for key, value in batch.items()
            ]
            try:
                await self._etcd.transact(Transaction([], operations))
            except EtcdError:
                self._published.put_back(batch)
                raise

    async def compare(self) -> Sequence[str]:
        """Have everything written that etcd lacks.

        :return: the keys of this machine that it has, and that are not wanted.
        """
        found: dict[str, bytes] = {}
        keys: list[str] = []
        for prefix in self._layout.of_host(self._host):
            async for page in self._etcd.pages(prefix):
                keys += [each.key for each in page.keys]
                found |= {
                    each.key: each.value for each in page.keys if each.lease == self._lease.number
                }
        self._published.compare(found)
        return self._published.unwanted(keys)
