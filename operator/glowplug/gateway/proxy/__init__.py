"""HTTP/1.1 on both sides of the gateway: clients in front, engines behind.

This room knows bytes, heads and connections; models, holding and balancing are its callers'.
"""

from glowplug.gateway.proxy.engine import EngineGone, Sink
from glowplug.gateway.proxy.pool import EnginePool
from glowplug.gateway.proxy.reply import Reply
from glowplug.gateway.proxy.server import Handler, ProxyServer
from glowplug.gateway.proxy.wire import Address, Headers, Request, WireLimits

__all__ = [
    "Address",
    "EngineGone",
    "EnginePool",
    "Handler",
    "Headers",
    "ProxyServer",
    "Reply",
    "Request",
    "Sink",
    "WireLimits",
]
