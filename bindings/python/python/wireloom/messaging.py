"""Requests, replies and signals: the client of Wireloom's messaging, compatible with WebWire 2.0."""

from ._wireloom import Message, MessagingClient, RequestFailed

Client = MessagingClient

__all__ = ["Client", "Message", "MessagingClient", "RequestFailed"]
