"""The address of a server that is called with a key: nothing secret stands in it, since experiments are
written down and shown.
"""

import re
from urllib.parse import unquote, urlsplit

KEYS = "a key comes from the variable that api_key_env names"


def check_url(url: str) -> str:
    """An address, as it is.

    Raises:
        ValueError: none of http or https, or one that holds more than host, port and path.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # whose words may repeat a password
        raise ValueError("must be an address such as http://host:8000/v1") from None
    if not url.isprintable() or " " in url:
        raise ValueError("must be an address without spaces and line ends")
    if "@" in unquote(parts.netloc) or ("@" in url and not host):
        raise ValueError(f"must hold no name and no password: {KEYS}")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError(f"must end with its path: /chat/completions comes after it, and {KEYS}")
    if (end := re.search(r"/(chat/completions|completions|responses|messages)/*$", parts.path)) is not None:
        raise ValueError(f"must end before {end[0]}: /chat/completions is added to it")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("must be an address such as http://host:8000/v1")
    return url


def shown(url: str) -> str:
    """An address for people, without what may be secret.

    >>> shown("http://me:word@host/v1?key=word")
    'http://***@host/v1?***'
    """
    return re.sub(
        r"[?#].*", "?***", re.sub(r"^(\w+://)?.*@", r"\1***@", unquote(url), flags=re.S), flags=re.S
    )
