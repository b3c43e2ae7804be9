"""Certificates of tests."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A certificate authority of a test.

    Args:
        directory: For its files.
        name: Of the authority.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        # Python 3.13 is strict: an authority says what it is for, and each certificate whose it is.
        nothing = ("digital_signature", "content_commitment", "key_encipherment",
                   "data_encipherment", "key_agreement", "encipher_only", "decipher_only")  # fmt: skip
        signs = x509.KeyUsage(
            key_cert_sign=True, crl_sign=True, **dict.fromkeys(nothing, False)
        )  # fmt: skip
        made = (
            self._unsigned(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(signs, critical=True)
        )
        self.file = self._write(name, made.sign(self._key, hashes.SHA256()))

    def issue(self, host: str) -> tuple[Path, Path]:
        """Return the files of a certificate for an IP address, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
        made = self._unsigned(subject, key.public_key()).add_extension(address, critical=False)
        path = self._directory / f"{host}.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return self._write(host, made.sign(self._key, hashes.SHA256())), path

    def _unsigned(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self._directory / f"{name}.crt"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path
