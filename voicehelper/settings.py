"""Where to connect, and with which keys: `.env` and the environment, read once.

One sentence: `Settings.load()` turns seven variables into a frozen value, or says in words what is missing; `Settings.ask()` asks for it.
What it does not do: open a connection, choose silently between Azure and practice, or change the environment.

Once this module is imported, whatever the loggers "voicehelper" and "websocket" say is masked: no key that is in use gets through them.
"""

import getpass
import io
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment
from weakref import WeakValueDictionary

from .errors import SettingsError

REQUIRED = ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_KEY", "AZURE_SPEECH_KEY", "AZURE_SPEECH_REGION")
DEFAULT_DEPLOYMENT = "gpt-realtime-2.1-mini"
_PLACEHOLDER = re.compile(r"\A(<.*>|your[_\- ].*|.*//your-resource.*|x{4,}|\.\.\.|changeme)\Z", re.IGNORECASE)
# of a server: (scheme, host, the same if it is this machine, port); of a practice server all but the scheme is there
_ADDRESS = re.compile(r"([a-z]+:)?(?://)?((127\.0\.0\.1|localhost|\[::1\])|[\w-]+(?:\.[\w-]+)+)(:\d{1,5})?(?:[/?#].*)?")
_HERE = re.compile(r"(http:|ws:)?(?://)?((127\.0\.0\.1|localhost|\[::1\]))(:\d{1,5})(?:[/?#].*)?")
# whatever is written there, a password with "@" or "/" in it stays a password: (name, password, host, port)
_PROXY = re.compile(r"(?:\w+://)?(?:([^:]*)(?::(.*))?@)?\[?((?<=\[)[^\]]*|[^:/?#]*)\]?(?::(\d{1,5}))?")


class Secret:
    """A key that no repr, str, format or pickle shows. `reveal()` is called where a header is built, and nowhere else.

    8 characters of a key in a row count as the key. A shorter key can't be told from the words around it: it is not masked inside text.
    """

    __slots__ = ("__weakref__", "reveal")

    def __init__(self, value: str):
        self.reveal: Callable[[], str] = lambda: value  # not in an attribute, where `inspect` and debuggers would show it
        _LIVE[id(self)] = self

    def mask(self, text: str) -> str:
        """`text` without the key, nor any 8 characters of it in a row."""
        has = self.reveal().__contains__  # a traceback that shows local variables does not show what is behind this one
        # 8 characters in a row hold one of every fifth 4: only what is near one that is in the key, too, is looked at closely
        near = [at for at in range(0, len(text) - 3, 5) if has(text[at : at + 4])]
        starts = (start for at in near for start in range(max(0, at - 4), min(at, len(text) - 8) + 1))
        hidden = {at for start in starts if has(text[start : start + 8]) for at in range(start, start + 8)}
        return re.sub("\0+", "****", "".join("\0" if at in hidden else char for at, char in enumerate(text))) if hidden else text

    def __bool__(self) -> bool:
        return bool(self.reveal())

    def __repr__(self) -> str:
        return "Secret('****')"

    def __reduce__(self):
        raise TypeError("a Secret is not pickled or copied to disk")


_LIVE: WeakValueDictionary[int, Secret] = WeakValueDictionary()  # every key that somebody still holds


def _hide_keys(record: logging.LogRecord) -> bool:
    """A filter of loggers: the whole text of the record, traceback included, becomes its message, without the keys."""
    for secret in filter(None, [ref() for ref in _LIVE.valuerefs()]):  # a list: other threads make secrets meanwhile
        try:
            said = logging.Formatter().format(record)
        except Exception:  # the values do not fit the message: the handlers would raise and show them
            said = f"{record.msg} {record.args}"
        vars(record).update(msg=secret.mask(said), args=(), exc_info=None, exc_text=None, stack_info=None)
    return True


for _name in ("voicehelper", "websocket"):
    logging.getLogger(_name).addFilter(_hide_keys)


@dataclass(frozen=True)
class Settings:
    """Everything needed to connect.

    Attributes:
        backend: "azure" or "practice".
        realtime_url: `wss://HOST/openai/v1/realtime`, without the model (GA path: no api-version).
        deployment: the name of the Realtime deployment, the user's own.
        openai_key, speech_key: masked.
        speech_region: such as "westeurope"; None in practice.
        speech_host: `ws://127.0.0.1:PORT` in practice; None on Azure.
        speech_tier: "F0" keeps the queue to the pace of the free tier from the start.
    """

    backend: str
    realtime_url: str = ""
    openai_key: Secret = Secret("")
    deployment: str = DEFAULT_DEPLOYMENT
    speech_key: Secret = Secret("")
    speech_region: str | None = None
    speech_host: str | None = None
    speech_tier: str = ""

    @classmethod
    def load(cls, dotenv: str | os.PathLike | None = None, environ: Mapping[str, str] | None = None, *, ask: bool = False) -> "Settings":
        """Read `.env` and the environment; the environment wins.

        Args:
            dotenv: the file to read; None looks for `.env` here and in the folders above.
            environ: instead of `os.environ`.
            ask: as `Settings.ask()` does.

        Returns:
            Settings for Azure when all four variables are given, for practice when none is. A practice server that runs
            elsewhere on this machine is named by VOICEHELPER_PRACTICE_URL and VOICEHELPER_PRACTICE_KEY.

        Raises:
            SettingsError: some variables are missing, empty or still placeholders (the message names them), an endpoint is not
                a host name, VOICEHELPER_BACKEND is something else than azure or practice, or the file can't be read.
        """
        environ = _sealed(os.environ if environ is None else environ)
        values = {**_sealed(_read(dotenv)), **environ}
        if "AZURE_OPENAI_API_KEY" in values:  # the other spelling
            values["AZURE_OPENAI_KEY"] = values.get("AZURE_OPENAI_KEY") or values["AZURE_OPENAI_API_KEY"]
        backend = values.get("VOICEHELPER_BACKEND", "azure" if ask else "").lower()
        if backend not in ("", "azure", "practice"):
            raise SettingsError("VOICEHELPER_BACKEND is neither azure nor practice", hint="Set it to azure or practice, or remove it.")
        for name in [name for name in REQUIRED if ask and backend == "azure" and not values.get(name)]:
            values |= _sealed({name: (getpass.getpass if "KEY" in name else input)(f"{name}: ")})
        missing = [name for name in REQUIRED if not values.get(name)]
        if backend == "practice" or (not backend and len(missing) == len(REQUIRED)):
            if url := values.get("VOICEHELPER_PRACTICE_URL"):
                url = realtime_url(url, "VOICEHELPER_PRACTICE_URL", "http://127.0.0.1:PORT", _HERE)
                return cls.practice(url, url.removesuffix("/openai/v1/realtime"), values.get("VOICEHELPER_PRACTICE_KEY") or Secret(""))
            return cls("practice")
        if missing:
            raise SettingsError(", ".join(f"{name} is {'still a placeholder' if name in values else 'missing'}" for name in missing))
        endpoint, key, speech_key, region = (values[name] for name in REQUIRED)
        if not re.fullmatch(r"[a-z0-9]{1,24}", region := re.sub(r"\s+", "", region).lower()):  # longer: the key, in the wrong place
            raise SettingsError("AZURE_SPEECH_REGION is not a region", hint="Write it like westeurope: its name without spaces.")
        deployment = values.get("AZURE_OPENAI_DEPLOYMENT") or DEFAULT_DEPLOYMENT
        return cls("azure", realtime_url(endpoint), key, deployment, speech_key, region, None, values.get("AZURE_SPEECH_TIER", "").upper())

    @classmethod
    def ask(cls, dotenv: str | os.PathLike | None = None) -> "Settings":
        """As `load`, but ask for what is missing of the four variables, in a cell or a terminal; what is typed for a key is not shown.

        Nothing is written, neither to a file nor to the environment: the next kernel asks again.

        Raises:
            SettingsError: an answer is empty (the message names its variable), or what `load` raises.
        """
        return cls.load(dotenv, ask=True)

    @classmethod
    def practice(cls, realtime_url: str, speech_host: str, key: Secret) -> "Settings":
        """Settings of a practice server that runs already."""
        return cls("practice", realtime_url, key, speech_key=key, speech_host=speech_host)

    @property
    def url(self) -> str:
        """The URL of the socket, deployment included, without a key."""
        return f"{self.realtime_url}?model={quote(self.deployment, safe='')}"

    @property
    def where(self) -> str:
        """One sentence: where we are connected."""
        if self.backend == "practice":
            place = urlsplit(self.realtime_url).netloc or "this machine"
            return f"practice server on {place}: a scripted tutor and a practice voice, no keys, no internet"
        return f"Azure OpenAI at {urlsplit(self.realtime_url).hostname}, deployment {self.deployment}; Azure Speech in {self.speech_region}"

    def mask(self, text: str) -> str:
        """`text` without any of the keys."""
        return self.speech_key.mask(self.openai_key.mask(text))


def realtime_url(endpoint: str, name="AZURE_OPENAI_ENDPOINT", example="https://NAME.openai.azure.com", form: re.Pattern = _ADDRESS) -> str:
    """The GA Realtime URL for any spelling of an endpoint: with or without scheme, slash, path or query.

    Args:
        endpoint: the address; plain (`ws:`) only on this machine.
        name, example: for the error: the variable it is from, and how it should look.
        form: what it must match, with the groups of `_ADDRESS`.

    Raises:
        SettingsError: there is no host name in it.

    Source: Azure OpenAI, how-to realtime-audio-websockets (`/openai/v1/realtime`, api-version must be absent).
    """
    found = form.fullmatch(endpoint.strip().strip("\"'").lower())
    if not found or int((found[4] or ":0")[1:]) > 65535:  # what stands there is not quoted: people paste keys into the wrong line
        raise SettingsError(f"{name} is no address that fits", hint=f"Write it as {example}.")
    scheme, host, on_this_machine, port = found.groups("")
    return f"{'ws' if on_this_machine and scheme not in ('https:', 'wss:') else 'wss'}://{host}{port}/openai/v1/realtime"


def proxy(url: str) -> tuple[str, int, str, Secret] | None:
    """The proxy that stands before a `wss://` address: its host and port, the name and the password it wants ("" when none are given).

    It is the one in HTTPS_PROXY or https_proxy, except for hosts of this machine and for those in NO_PROXY (`HOST`, `HOST:PORT`, and all below a
    domain: `azure.com`, `.azure.com` or `*.azure.com`; `*` is all hosts). None: there is none. SOCKS and ALL_PROXY are not supported.
    """
    address, named = _ADDRESS.fullmatch(url), getproxies_environment()
    passed = {"no": re.sub(r"\*\.|:443\b", "", named.get("no", ""))}  # the standard library knows neither *.azure.com nor our port
    if not address or address[1] != "wss:" or address[3] or "https" not in named or proxy_bypass_environment(address[2], passed):
        return None
    name, password, host, port = _PROXY.match(named["https"]).groups("")
    return host or "?", int(port or 80), unquote(name), Secret(unquote(password))


def certificates() -> str:
    """The certificates to trust instead of the system's, as PEM. "" is what OpenSSL trusts by itself: the system's, and SSL_CERT_FILE.

    REQUESTS_CA_BUNDLE and WEBSOCKET_CLIENT_CA_BUNDLE each name a file of them; SSL_CERT_FILE counts beside them, too. A file that does not exist
    is passed over, as OpenSSL does. There is no way to trust everything.
    """
    first, *others = (os.environ.get(name, "") for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE"))
    named = [first, *others] if any(map(os.path.isfile, others)) else []
    return "\n".join(Path(path).read_text("ascii", "ignore") for path in named if os.path.isfile(path))


def _read(dotenv: str | os.PathLike | None) -> Mapping[str, str | None]:
    from dotenv import dotenv_values, find_dotenv

    path = os.fspath(dotenv) if dotenv is not None else find_dotenv(usecwd=True)
    try:
        content = Path(path).read_bytes() if path else b""
        # PowerShell begins a file with these two bytes
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path} can't be read ({error.strerror})", hint="Check its name and permissions.") from None
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
    return dotenv_values(stream=io.StringIO(text), interpolate=False)


def _sealed(values: Mapping[str, str | None]) -> dict[str, str | Secret]:
    """What has a value, "" for a placeholder, keys as `Secret` from the start: a traceback with local variables must not show one."""
    given = ((name, bare) for name, value in values.items() if (bare := (value or "").strip("“”‘’ \t\r\n\u00a0")))
    return {name: (Secret if "KEY" in name else str)(_PLACEHOLDER.sub("", bare)) for name, bare in given}
