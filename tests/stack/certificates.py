"""Certificates of an authority that tests make."""

from pathlib import Path

import trustme


def write_certificates(folder: Path, authority: trustme.CA) -> None:
    """Write an authority's certificate, ``ca.pem``, and those of a server and a client, each with its key."""
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name, certificate in (
        ("server", authority.issue_cert("localhost", "127.0.0.1")),
        ("client", authority.issue_cert("trainer")),
    ):
        certificate.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        certificate.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
