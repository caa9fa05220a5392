"""How etcd is known, and how this host is known to etcd."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from attrs import frozen
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from portmapd.errors import ConfigurationError

_PEM_END = b"-----END CERTIFICATE-----"


@implementer(IPolicyForHTTPS)
@frozen
class EtcdTls:
    """The certificates of connections to etcd.

    :param authority: the file of the authorities that etcd's certificate is of; None: those that
        this host trusts.
    :param certificate: the file of this host's certificate; None: it has none.
    :param key: the file of its key.
    :raises ConfigurationError: a file cannot be used.
    """

    authority: str | None = None
    certificate: str | None = None
    key: str | None = None

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """What makes connections to a member; see :class:`IPolicyForHTTPS`."""
        return optionsForClientTLS(
            hostname.decode("ascii"), self._trust(), clientCertificate=self._own()
        )

    def check(self) -> None:
        """Read the files.

        :raises ConfigurationError: one cannot be used.
        """
        self._trust()
        self._own()

    def _trust(self) -> Any:
        if self.authority is None:
            return platformTrust()
        pieces = _read(self.authority).split(_PEM_END)[:-1]
        try:
            found = [Certificate.loadPEM(piece + _PEM_END) for piece in pieces]
            return trustRootFromCertificates(found)
        except Exception as error:
            raise ConfigurationError(f"{self.authority} has no certificates: {error}") from error

    def _own(self) -> PrivateCertificate | None:
        if self.certificate is None or self.key is None:
            return None
        data = _read(self.certificate) + b"\n" + _read(self.key)
        try:
            return cast("PrivateCertificate", PrivateCertificate.loadPEM(data))
        except Exception as error:
            raise ConfigurationError(
                f"{self.certificate} and {self.key} are no certificate and its key: {error}"
            ) from error


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
