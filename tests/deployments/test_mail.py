"""The mail block, against a mail server."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prefect.blocks.abstract import NotificationError

from deployments.mail import Mail
from deployments.services import usable_port
from tests.deployments.receivers import PASSWORD, USER, mail_server

MAIL = {
    "host": "127.0.0.1",
    "sender": "fractal@example.org",
    "recipients": ["one@example.org", "two@example.org"],
    "user": USER,
    "password": PASSWORD,
}


@pytest.fixture
def port() -> int:
    return usable_port("127.0.0.1", 0, "")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key and the certificate of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize("security", ["none", "starttls", "ssl"])
async def test_a_mail_reaches_everybody_through_each_kind_of_connection(
    port: int, certificate: Path, monkeypatch: pytest.MonkeyPatch, security: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with mail_server(port, security, server_context(certificate)) as mailbox:
        mail = Mail.model_validate(MAIL | {"port": port, "security": security})
        await mail.notify("The body, with µm and\na second line.", "A subject\nin two lines")
    ((recipients, message),) = mailbox.mails
    assert recipients == MAIL["recipients"]
    assert message["Subject"] == "A subject in two lines"
    assert message["From"] == "fractal@example.org"
    assert message.get_content().splitlines() == ["The body, with µm and", "a second line."]


@pytest.mark.parametrize("security", ["starttls", "ssl"])
async def test_a_server_that_nobody_vouches_for_gets_no_password(
    port: int, certificate: Path, security: str
) -> None:
    with mail_server(port, security, server_context(certificate)) as mailbox:
        mail = Mail.model_validate(MAIL | {"port": port, "security": security})
        with pytest.raises(NotificationError) as told:
            await mail.notify("Body")
    assert "CERTIFICATE_VERIFY_FAILED" in told.value.log
    assert mailbox.mails == []


async def test_a_wrong_password_is_told_without_it(port: int) -> None:
    wrong = {"port": port, "security": "none", "password": "guessed"}
    with mail_server(port):
        mail = Mail.model_validate(MAIL | wrong)
        with pytest.raises(NotificationError) as told:
            await mail.notify("Body")
    assert "127.0.0.1" in told.value.log
    assert "535" in told.value.log
    assert "guessed" not in told.value.log + repr(mail)


async def test_a_server_that_is_not_there_is_told(port: int) -> None:
    mail = Mail.model_validate(MAIL | {"port": port})
    with pytest.raises(NotificationError) as told:
        await mail.notify("Body")
    assert "Connection refused" in told.value.log
