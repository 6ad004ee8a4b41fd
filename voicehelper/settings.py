"""Where to connect, and with which keys: `.env` and the environment, read once.

One sentence: `Settings.load()` turns seven variables into a frozen value, or says in words what is missing.
What it does not do: open a connection, choose silently between Azure and practice, or change the environment.
"""

import codecs
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from .errors import SettingsError

REQUIRED = ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_KEY", "AZURE_SPEECH_KEY", "AZURE_SPEECH_REGION")
DEFAULT_DEPLOYMENT = "gpt-realtime-2.1-mini"
_PLACEHOLDER = re.compile(r"<.*>|your[_\- ].*|.*//your-resource.*|x{4,}|\.\.\.|changeme", re.IGNORECASE)
_ADDRESS = re.compile(r"([a-z]+:)?(?://)?([\w-]+(?:\.[\w-]+)+|localhost|\[::1\])(?P<port>:\d{1,5})?(?:[/?#].*)?")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_SHOWN = 8  # so many characters of a key in a row are as good as the key


class Secret:
    """A key that no repr, str, format or pickle shows. `reveal()` is called where a header is built, and nowhere else."""

    __slots__ = ("_value",)

    def __init__(self, value: str):
        self._value = value

    def reveal(self) -> str:
        return self._value

    def mask(self, text: str) -> str:
        """`text` without the key, nor any 8 characters of it in a row."""
        value, size = self._value, min(_SHOWN, len(self._value))
        # 8 characters in a row hold one of every fifth 4: most texts are done after this quick look
        if not value or (size == _SHOWN and not any(text[at : at + 4] in value for at in range(0, len(text) - 3, 5))):
            return text
        starts = [start for start in range(len(text) - size + 1) if text[start : start + size] in value]
        hidden = {at for start in starts for at in range(start, start + size)}
        return re.sub("\0+", "****", "".join("\0" if at in hidden else char for at, char in enumerate(text))) if hidden else text

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret('****')"

    def __reduce__(self):
        raise TypeError("a Secret is not pickled or copied to disk")


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
    def load(cls, dotenv: str | os.PathLike | None = None, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read `.env` and the environment; the environment wins.

        Args:
            dotenv: the file to read; None looks for `.env` here and in the folders above.
            environ: instead of `os.environ`.

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
        backend = values.get("VOICEHELPER_BACKEND", "").lower()
        if backend not in ("", "azure", "practice"):
            raise SettingsError("VOICEHELPER_BACKEND is neither azure nor practice", hint="Set it to azure or practice, or remove it.")
        missing = [name for name in REQUIRED if not values.get(name)]
        if backend == "practice" or (not backend and len(missing) == len(REQUIRED)):
            if url := values.get("VOICEHELPER_PRACTICE_URL"):
                return cls.practice(*_practice_urls(url), values.get("VOICEHELPER_PRACTICE_KEY") or Secret(""))
            return cls("practice")
        if missing:
            raise SettingsError(", ".join(f"{name} is {'still a placeholder' if name in values else 'missing'}" for name in missing))
        endpoint, key, speech_key, region = (values[name] for name in REQUIRED)
        region = re.sub(r"\s+", "", region).lower()
        if not re.fullmatch(r"[a-z0-9]{1,24}", region):  # longer: the key, in the wrong place
            raise SettingsError("AZURE_SPEECH_REGION is not a region", hint="Write it like westeurope: its name without spaces.")
        deployment = values.get("AZURE_OPENAI_DEPLOYMENT") or DEFAULT_DEPLOYMENT
        tier = values.get("AZURE_SPEECH_TIER", "").upper()
        return cls("azure", realtime_url(endpoint), key, deployment, speech_key, speech_region=region, speech_tier=tier)

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


def realtime_url(endpoint: str) -> str:
    """The GA Realtime URL for any spelling of an endpoint: with or without scheme, slash, path or query.

    Raises:
        SettingsError: there is no host name in it.

    Source: Azure OpenAI, how-to realtime-audio-websockets (`/openai/v1/realtime`, api-version must be absent).
    """
    scheme, host, port = _place(endpoint)
    if not host:  # what stands there is not quoted: people paste keys into the wrong line
        raise SettingsError("AZURE_OPENAI_ENDPOINT names no host", hint="Write it as https://NAME.openai.azure.com.")
    scheme = "ws" if host in _LOOPBACK and scheme in ("http:", "ws:") else "wss"
    return f"{scheme}://{host}{port}/openai/v1/realtime"


def _practice_urls(address: str) -> tuple[str, str]:
    """The Realtime URL and the speech host of a practice server at this address."""
    _, host, port = _place(address)
    if host not in _LOOPBACK or not port:
        raise SettingsError("VOICEHELPER_PRACTICE_URL is not a server on this machine", hint="Write it as http://127.0.0.1:PORT.")
    return f"ws://{host}{port}/openai/v1/realtime", f"ws://{host}{port}"


def _place(address: str) -> tuple[str, str, str]:
    """Scheme, host and port of an address, however it is written, such as ("http:", "127.0.0.1", ":8000"); three times "" when it is none."""
    found = _ADDRESS.fullmatch(address.strip().strip("\"'").lower())
    return found.groups("") if found and int((found["port"] or ":0")[1:]) < 65536 else ("", "", "")


def _read(dotenv: str | os.PathLike | None) -> Mapping[str, str | None]:
    from dotenv import dotenv_values, find_dotenv

    path = os.fspath(dotenv) if dotenv is not None else find_dotenv(usecwd=True)
    try:
        content = Path(path).read_bytes() if path else b""
        text = content.decode("utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path} can't be read ({error.strerror})", hint="Check its name and permissions.") from None
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
    return dotenv_values(stream=io.StringIO(text), interpolate=False)


def _sealed(values: Mapping[str, str | None]) -> dict[str, str | Secret]:
    """What has a value, "" for a placeholder, keys as `Secret` from the start: a traceback with local variables must not show one."""
    clean = ((name, value.strip().strip("“”‘’\u00a0").strip()) for name, value in values.items() if value)
    real = ((name, "" if _PLACEHOLDER.fullmatch(value) else value) for name, value in clean if value)
    return {name: Secret(value) if "KEY" in name else value for name, value in real}
