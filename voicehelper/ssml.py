"""SSML for one utterance: a voice, how fast, how high, how loud, in which style.

One sentence: `create_response_ssml(text, voice)` builds a tree, never a string of pieces, so that no character of the text can become a tag.
What it does not do: decide what is said (`speakable` does), or know what a voice supports: Azure substitutes what it can't do.

Source of element names and ranges: Azure Speech, "Speech Synthesis Markup Language: voice and sound / document structure".
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from .errors import InputError

SYNTHESIS = "http://www.w3.org/2001/10/synthesis"
MSTTS = "https://www.w3.org/2001/mstts"
XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
MAX_BYTES = 64 * 1024  # Azure's limit for one request over the socket
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
ET.register_namespace("", SYNTHESIS)
ET.register_namespace("mstts", MSTTS)


@dataclass(frozen=True)
class Voice:
    """How an answer is spoken.

    Args:
        name: a voice of Azure Speech, such as "en-US-AriaNeural".
        rate: 0.5 to 2 as a multiplier (0.9), or SSML ("+10%", "slow").
        pitch: a change in per cent as a number (5 is "+5%"), or SSML ("high", "+2st").
        volume: 0 to 100 as a number, or SSML ("soft", "-20%").
        style: a speaking style the voice has, such as "cheerful".
        style_degree: 0.01 to 2, how strong the style is.
        role: another age or gender for voices that have roles.

    Raises:
        InputError: the name is no voice name, or a number is outside its range.
    """

    name: str = "en-US-AriaNeural"
    rate: float | str | None = None
    pitch: float | str | None = None
    volume: float | str | None = None
    style: str | None = None
    style_degree: float | None = None
    role: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+){2,3}(:[A-Za-z0-9]+)?", self.name):
            raise InputError(f"{self.name!r} is not the name of a voice", hint='Write it like "en-US-AriaNeural".')
        for name, low, high in (("rate", 0.5, 2), ("pitch", -50, 50), ("volume", 0, 100), ("style_degree", 0.01, 2)):
            value = getattr(self, name)
            if isinstance(value, (int, float)) and not low <= value <= high:
                raise InputError(f"{name}={value} is out of range", hint=f"Give a number from {low} to {high}, or SSML as a string.")
            if not isinstance(value, (int, float, type(None)) if name == "style_degree" else (int, float, str, type(None))):
                raise InputError(f"{name}={value!r} is neither a number nor SSML", hint=f"Give a number from {low} to {high}.")
        if not all(isinstance(value, (str, type(None))) for value in (self.style, self.role)):
            raise InputError("style and role are strings", hint='Write them like style="cheerful".')

    @classmethod
    def calm(cls, name: str = "en-US-AriaNeural") -> "Voice":
        """Slower and softer: the sample's setting for answers."""
        return cls(name, rate=0.9, pitch="medium", volume="soft")

    @classmethod
    def energetic(cls, name: str = "en-US-AriaNeural") -> "Voice":
        """Faster, higher and louder."""
        return cls(name, rate=1.2, pitch="high", volume="loud")

    @property
    def language(self) -> str:
        """The locale in the name, such as "en-US"."""
        return "-".join(self.name.split("-")[:2])

    @property
    def prosody(self) -> dict[str, str]:
        """The attributes of `<prosody>`, {} when nothing is changed."""
        given = {
            "rate": f"{self.rate:g}" if isinstance(self.rate, (int, float)) else self.rate,
            "pitch": f"{self.pitch:+g}%" if isinstance(self.pitch, (int, float)) else self.pitch,
            "volume": f"{self.volume:g}" if isinstance(self.volume, (int, float)) else self.volume,
        }
        return {name: value for name, value in given.items() if value is not None}


def legal_text(text: str) -> str:
    """`text` as it may stand in XML: halves of surrogate pairs are joined or replaced, illegal characters removed."""
    if not isinstance(text, str):
        raise InputError(f"a text is a string, not {type(text).__name__}", hint="Write it in quotes.")
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _ILLEGAL.sub("", joined)


def create_response_ssml(text: str, voice: Voice | None = None) -> str:
    """The SSML document that says `text` in `voice`.

    Args:
        text: plain text; `&`, `<` and tags in it are spoken, never obeyed.
        voice: None is `Voice()`.

    Returns:
        A document with one `<voice>`, parsed back once before it is returned.

    Raises:
        InputError: it would be 64 KB or larger, Azure's limit for one request.
    """
    voice = voice or Voice()
    speak = ET.Element(f"{{{SYNTHESIS}}}speak", {"version": "1.0", XML_LANG: voice.language})
    inner = ET.SubElement(speak, f"{{{SYNTHESIS}}}voice", {"name": voice.name})
    if voice.style or voice.role:
        style = {"style": voice.style, "styledegree": f"{voice.style_degree:g}" if voice.style_degree else None, "role": voice.role}
        inner = ET.SubElement(inner, f"{{{MSTTS}}}express-as", {name: legal_text(value) for name, value in style.items() if value})
    if voice.prosody:
        inner = ET.SubElement(inner, f"{{{SYNTHESIS}}}prosody", {name: legal_text(value) for name, value in voice.prosody.items()})
    inner.text = legal_text(text)
    document = ET.tostring(speak, encoding="unicode")
    size = len(document.encode())
    if size >= MAX_BYTES:
        raise InputError(f"this utterance is {size:,} bytes of SSML", hint="Azure takes less than 64 KB: cut the text into sentences.")
    ET.fromstring(document)
    return document
