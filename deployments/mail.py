"""A Prefect block with which automations send mail by SMTP; Prefect itself has none.

Prefect finds this module through its entry point, in every process where this project is installed.
"""

import asyncio
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Literal

from prefect.blocks.abstract import NotificationBlock, NotificationError
from pydantic import Field, SecretStr

_PORTS = {"starttls": 587, "ssl": 465, "none": 25}
_SECONDS = 30


class Mail(NotificationBlock):
    """Sends notifications by mail, through an SMTP server."""

    _block_type_name = "Fractal Mail"
    _block_type_slug = "fractal-mail"
    _description = "Sends notifications by mail, through an SMTP server."

    host: str = Field(description="Host name of the SMTP server.")
    security: Literal["starttls", "ssl", "none"] = Field(
        default="starttls", description="How the connection is encrypted."
    )
    port: int | None = Field(default=None, description="Its port; default: 587, 465 or 25.")
    user: str | None = Field(default=None, description="User name, if it wants a login.")
    password: SecretStr | None = Field(default=None, description="Password, if it wants a login.")
    sender: str = Field(description="Address that mails come from.")
    recipients: list[str] = Field(description="Addresses that mails go to.", min_length=1)

    async def notify(self, body: str, subject: str | None = None) -> None:
        """Send a mail.

        Raises:
            NotificationError: the server cannot be reached, or refuses some recipients.
        """
        try:
            await asyncio.to_thread(self._send, self._message(body, subject or ""))
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise NotificationError(f"No mail through {self.host}: {error!r}") from error

    def _message(self, body: str, subject: str) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = " ".join(subject.split())
        message["From"] = self.sender
        message["To"] = ", ".join(self.recipients)
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self.sender.rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"  # no out-of-office replies
        message.set_content(body)
        return message

    def _send(self, message: EmailMessage) -> None:
        port = self.port or _PORTS[self.security]
        with self._connect(port) as server:
            if self.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if self.user is not None:
                password = self.password.get_secret_value() if self.password else ""
                server.login(self.user, password)
            if refused := server.send_message(message):
                raise smtplib.SMTPRecipientsRefused(refused)

    def _connect(self, port: int) -> smtplib.SMTP:
        if self.security == "ssl":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self.host, port, timeout=_SECONDS, context=context)
        return smtplib.SMTP(self.host, port, timeout=_SECONDS)
