"""No network beyond this machine, for every Python process that starts with this folder on PYTHONPATH.

Python imports `sitecustomize` at its start and cannot take an audit hook off again, so notebooks and the Python
processes that they start are closed in alike. Loopback and Unix sockets stay open: a kernel talks to its client through
them. Programs that are not Python, and `python -I`, are not held by this.
"""

import ipaddress
import socket
import sys

WITH_ADDRESS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
"""Events whose arguments are a socket and an address."""

WITH_NAME = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
"""Events whose first argument is a host."""


class NetworkClosed(RuntimeError):
    """Not an OSError: code that goes on after a failed connection must not hide it."""


def is_here(host: object) -> bool:
    """Whether a host is this machine; a name that could be somewhere else is not."""
    name = host.decode() if isinstance(host, bytes) else host
    if not name or name in {"localhost", socket.gethostname()}:
        return True
    try:
        address = ipaddress.ip_address(str(name).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def hosts(event: str, arguments: tuple) -> list[object]:
    """The hosts that an event asks for: one or none."""
    if event in WITH_NAME:
        return [arguments[0]]
    if event in WITH_ADDRESS and isinstance(arguments[1], tuple) and isinstance(arguments[1][0], str):
        return [arguments[1][0]]
    return []


def refuse(event: str, arguments: tuple) -> None:
    """The audit hook."""
    for host in hosts(event, arguments):
        if not is_here(host):
            raise NetworkClosed(
                f"{host} was asked for, and no notebook may reach the network\n"
                "needed: files on this machine, or an address of this machine\n"
                "to do: fetch data beforehand: twotower fetch ml-100k"
            )


sys.addaudithook(refuse)
