"""The client that reaches a judge. What can't work (a key, a proxy, an address) is refused before anything is sent."""

from __future__ import annotations

import os
import re
import ssl
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import SettingsError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from .metrics.judge import JudgeSettings

_QUOTES = "\"'`"


def key_variable(how: JudgeSettings) -> str:
    """Where the key is; a key for OpenAI is sent to another endpoint only where the settings say so."""
    return how.key_variable or ("" if how.url else "OPENAI_API_KEY")


def open_client(how: JudgeSettings) -> AsyncOpenAI:
    """The client for the endpoint that the settings name. A judge on this machine is asked directly, whatever proxies there are.

    Raises:
        SettingsError: the package is not installed, or the key, the address or a proxy of the environment can't be used.
    """
    try:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient
    except ImportError:
        raise SettingsError("[reward.judge] needs the openai client: pip install 'selfedit[judge]'") from None
    key, parts = _key(how), urlsplit(how.url)
    if how.url and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise SettingsError(f"reward.judge.url: {how.url!r} is no address; write it as http://localhost:11434/v1")
    own: dict[str, Any] = {}
    try:
        if _is_here(parts.hostname or ""):
            # Without the environment's proxies; where the environment says certificates are, Python itself reads.
            own["http_client"] = DefaultAsyncHttpxClient(trust_env=False, verify=ssl.create_default_context())
        client = AsyncOpenAI(base_url=how.url or None, api_key=key, timeout=how.timeout_s, max_retries=how.retries, **own)
    except Exception as error:  # of the client's libraries, which read proxies and certificates from the environment
        raise SettingsError(_unusable_environment(error)) from None
    if how.url:  # the client takes OpenAI's account names from the environment, which concern no other endpoint
        client.organization = client.project = None
    return client


def way_to(how: JudgeSettings) -> str:
    """The proxy by way of which the judge is asked, in words; empty where there is none."""
    parts = urlsplit(how.url or "https://api.openai.com")
    proxies, host = getproxies(), parts.hostname or ""
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return "" if not proxy or _is_here(host) or proxy_bypass(host) else f", by way of the proxy {_without_password(proxy)}"


def _key(how: JudgeSettings) -> str:
    """The key; local servers take any. SettingsError where it can't be one: it would fail in the client, or be refused."""
    name = key_variable(how)
    key = os.environ.get(name, "") if name else ""
    problem = ""
    if any(c in "\r\n" for c in key):
        problem = "has a line break in it"
    elif any(c.isspace() for c in key):
        problem = "begins with 'Bearer', which is added to it anyway" if key.startswith("Bearer ") else "has a blank in it"
    elif strange := [i for i, c in enumerate(key, 1) if not "!" <= c <= "~"]:
        problem = f"has a character in it, at position {strange[0]}, that no key has (not ASCII, or invisible)"
    elif key and (key[0] in _QUOTES or key[-1] in _QUOTES):
        problem = "has quotes around it"
    if problem:
        raise SettingsError(
            f"reward.judge: the key in the environment variable {name} {problem}; set it again, to the key alone. Nothing was "
            "sent"
        )
    return key or "none"


def _is_here(host: str) -> bool:
    """The host is this machine."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".localdomain"))
    return address.is_loopback or address.is_unspecified


def _unusable_environment(error: Exception) -> str:
    """What is wrong where the client can't be made, and which variables it has read."""
    names = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    found = {name: value for name, value in os.environ.items() if name.upper() in names and value}
    shown = ", ".join(f"{name} = {_without_password(value)}" for name, value in sorted(found.items()))
    said = _without_password(" ".join(str(error).split()))
    advice = "correct or unset it, or name the judge's host in NO_PROXY"
    if isinstance(error, ImportError) and "socks" in str(error).casefold():
        said, advice = "a SOCKS proxy needs the package socksio", f"pip install socksio, or else {advice}"
    elif "scheme" in said.casefold():
        said = "a proxy's address begins with http://, https://, socks5:// or socks5h://"
    where = f"the environment ({shown})" if shown else "the environment"
    return f"reward.judge: the judge can't be asked with what {where} says: {said}; {advice}. Nothing was sent"


def _without_password(text: str) -> str:
    return re.sub(r"//[^/\s'\"]*@", "//", text)
