"""Between us and the services: proxies, certificates, and what is said when they stand in the way; for the chat and for the voice.

Nothing here leaves the machine: the proxy is asked for the services' real host names and leads to servers of ours, which stand behind real TLS
with certificates for those names.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.scripted import Answer, Scripted, delta, response, serving
from tests.scripted_speech import SpeechScript, speaking
from tests.support import limit, made_up, made_up_key, shows, wait_for
from voicehelper import AzureSpeech, ConversationAgent, SilentPlayer, Utterance, realtime
from voicehelper.errors import ConnectionFailed, SpeechFailed, VoiceHelperError
from voicehelper.settings import Secret, Settings, proxy, realtime_url

trustme = pytest.importorskip("trustme", reason="trustme is not installed (pip install -e '.[test]')")
pytestmark = limit(60)

BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE")
PROXIES = [f"{scheme}_proxy" for scheme in ("http", "https", "all", "ws", "wss", "no")]
SPEECH_HOST = "westeurope.tts.speech.microsoft.com"
VOICE_TOO_LONG_S = 20.0


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """What this machine says of proxies and certificates does not count."""
    for name in (*BUNDLES, "SSL_CERT_DIR", *PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)


# -- the parts of a network


@contextmanager
def listening(answer, tls: ssl.SSLContext | None = None):
    """Run `answer(reader, writer)` for each connection on 127.0.0.1 in a thread; yields the port."""
    loop, ports = asyncio.new_event_loop(), []

    async def attend(reader, writer):
        try:
            await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side left; the other one sees the end
        finally:
            writer.close()

    async def run(stop: asyncio.Event):
        server = await asyncio.start_server(attend, "127.0.0.1", 0, ssl=tls)
        ports.append((server.sockets[0].getsockname()[1], stop))
        await stop.wait()
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run(asyncio.Event())), daemon=True)
    thread.start()
    port, stop = wait_for(lambda: ports)[0]
    yield port
    loop.call_soon_threadsafe(stop.set)
    thread.join(5)
    loop.close()


async def lead(reader, writer, port: int) -> None:
    """Carry bytes both ways until one side leaves."""

    async def carry(source, drain):
        while chunk := await source.read(65_536):
            drain.write(chunk)
            await drain.drain()
        drain.close()

    there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.gather(carry(reader, there_writer), carry(there_reader, writer))
    finally:
        there_writer.close()


def behind_tls(port: int, certificate):
    """Real TLS before a plain server; yields the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return listening(partial(lead, port=port), context)


class Proxy:
    """A proxy of an office: what it is asked for, and whom it lets through.

    Attributes:
        routes: the port on this machine for each `HOST:PORT`.
        login: the "NAME:PASSWORD" it wants; None: nobody's.
        status: what it answers instead of letting anybody through.
        asked: each `HOST:PORT` somebody wanted, and with which login.
    """

    def __init__(self, login: str | None = None, status: int = 200):
        self.routes: dict[str, int] = {}
        self.login, self.status = login, status
        self.asked: list[tuple[str, str]] = []

    async def answer(self, reader, writer) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, place, _ = head.split(" ", 2)
        found = re.search(r"^proxy-authorization: *basic (\S+)", head, re.IGNORECASE | re.MULTILINE)
        login = base64.b64decode(found[1]).decode() if found else ""
        self.asked.append((place, login))
        if method != "CONNECT":
            status = 405
        elif self.login is not None and login != self.login:
            status = 407
        else:
            status = self.status if place in self.routes or self.status != 200 else 502
        writer.write(f"HTTP/1.1 {status} {made_up()}\r\nProxy-Authenticate: Basic realm=office\r\n\r\n".encode())
        await writer.drain()
        if status == 200:
            await lead(reader, writer, self.routes[place])

    @property
    def places(self) -> set[str]:
        return {place for place, _ in self.asked}


class Office(ExitStack):
    """Both services behind TLS with certificates of one authority, and a proxy that leads to them.

    Attributes:
        host: of the made-up resource; ca: the authority, not trusted by anybody yet; script: what the voice was asked.
    """

    def __init__(self, folder: Path, **proxied):
        super().__init__()
        self.ca, self.proxy, self.script = trustme.CA(), Proxy(**proxied), SpeechScript()
        self.host = f"{made_up().lower()}.openai.azure.com"
        self.words = f"{made_up()} {made_up()}."
        self.folder = folder

    def __enter__(self):
        super().__enter__()
        chat = self.enter_context(serving(Scripted, on_ask=self._answer))
        voice = self.enter_context(speaking(self.script))
        self.chat_port = self.enter_context(behind_tls(chat, self.ca.issue_cert(self.host, "127.0.0.1")))
        self.voice_port = self.enter_context(behind_tls(voice, self.ca.issue_cert(SPEECH_HOST, "127.0.0.1")))
        self.proxy.routes |= {f"{self.host}:443": self.chat_port, f"{SPEECH_HOST}:443": self.voice_port}
        self.port = self.enter_context(listening(self.proxy.answer))
        return self

    def _answer(self, server, number):
        for event in (response("in_progress"), delta(self.words), response("completed")):
            server.say(event)

    def certificate(self, *authorities) -> str:
        """A file with the certificates of these authorities, this office's if none is given."""
        path = self.folder / f"{made_up()}.pem"
        path.write_bytes(b"".join(authority.cert_pem.bytes() for authority in authorities or [self.ca]))
        return str(path)

    @property
    def settings(self) -> Settings:
        """As of somebody with a resource in Azure."""
        return Settings("azure", realtime_url(f"https://{self.host}"), Secret(made_up_key()), "d", Secret(made_up_key()), "westeurope")

    @property
    def here(self) -> Settings:
        """The same servers without a proxy, by their address on this machine."""
        place = f"wss://127.0.0.1:{self.chat_port}/openai/v1/realtime"
        return Settings("azure", place, Secret(made_up_key()), "d", Secret(made_up_key()), speech_host=f"wss://127.0.0.1:{self.voice_port}")


@pytest.fixture
def office(tmp_path, monkeypatch):
    with Office(tmp_path) as made:
        yield made


def chat(settings: Settings) -> str:
    """One answer; the voice has tests of its own."""
    with ConversationAgent.connect(settings, player=SilentPlayer(), voice=None) as agent:
        return agent.ask(made_up()).text


def refusal(settings: Settings) -> VoiceHelperError:
    with pytest.raises(VoiceHelperError) as caught:
        ConversationAgent.connect(settings, player=SilentPlayer(), voice=None)
    assert caught.value.__context__ is None and caught.value.__cause__ is None, "frames of the library hang on the error"
    return caught.value


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def say(settings: Settings) -> bytes:
    """The sound of one sentence, or SpeechFailed, and neither late."""
    begun = time.monotonic()
    with AzureSpeech(settings) as voice:
        return voice.synthesize(Utterance("t", 0, f"{made_up()}."), lambda: time.monotonic() - begun > VOICE_TOO_LONG_S).pcm


def everything(error: BaseException) -> str:
    """What any tool could show of an error: its words, and the local variables of the frames that hang on it."""
    frames, trace = [str(error), repr(error)], error.__traceback__
    while trace:
        if Path(trace.tb_frame.f_code.co_filename).parent.name == "voicehelper":
            frames.append(repr(trace.tb_frame.f_locals))
        trace = trace.tb_next
    return "\n".join(frames)


# -- which proxy


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://proxy.example:3128", ("proxy.example", 3128, "", "")),
        ("http://proxy.example:3128/", ("proxy.example", 3128, "", "")),
        ("https://proxy.example", ("proxy.example", 80, "", "")),
        ("proxy.example:8080", ("proxy.example", 8080, "", "")),
        ("http://me@proxy.example:8080", ("proxy.example", 8080, "me", "")),
        ("http://me:w0nd3r@proxy.example:8080", ("proxy.example", 8080, "me", "w0nd3r")),
        ("me:w0nd3r@proxy.example:8080", ("proxy.example", 8080, "me", "w0nd3r")),
        ("http://corp%5Cme:p%40ss%3A%2Fw%25@proxy.example:8080", ("proxy.example", 8080, "corp\\me", "p@ss:/w%")),
        ("http://me:p@ss:/w?o#rd@proxy.example:8080", ("proxy.example", 8080, "me", "p@ss:/w?o#rd")),
        ("http://[2001:db8::1]:3128", ("2001:db8::1", 3128, "", "")),
        ("http://", ("?", 80, "", "")),
    ],
)
def test_the_address_of_a_proxy_is_read_in_every_spelling(monkeypatch, address, expected):
    """Also with a name and a password, percent-encoded or with the signs that should have been."""
    monkeypatch.setenv("HTTPS_PROXY", address)
    host, port, name, password = proxy("wss://name.openai.azure.com/openai/v1/realtime?model=x")
    assert (host, port, name, password.reveal()) == expected
    assert shows(repr(password), expected[3], 3) == []


@pytest.mark.parametrize(
    ("passed", "skipped"),
    [
        ("name.openai.azure.com", True),
        ("NAME.OpenAI.Azure.com", True),
        ("example.com, name.openai.azure.com:443", True),
        ("name.openai.azure.com:8443", False),
        ("azure.com", True),
        (".azure.com", True),
        ("*.azure.com", True),
        ("*.azure.com:443,example.com", True),
        ("*", True),
        ("other.openai.azure.com,ame.openai.azure.com", False),
        (".ure.com", False),
        ("", False),
    ],
)
def test_no_proxy_names_hosts_domains_and_ports(monkeypatch, passed, skipped):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, passed)
        assert (proxy("wss://name.openai.azure.com/openai/v1/realtime") is None) == skipped
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "url", ["ws://127.0.0.1:8000", "ws://localhost:8000", "wss://127.0.0.1:8000/x", "wss://localhost", "wss://[::1]:8000"]
)
def test_a_server_on_this_machine_has_no_proxy(monkeypatch, url):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    assert proxy(url) is None


@pytest.mark.parametrize("url", ["", "?model=x", "ws://elsewhere.example:8000/x", "http://elsewhere.example"])
def test_an_address_without_tls_and_no_address_at_all_have_no_proxy(monkeypatch, url):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert proxy(url) is None


def test_the_small_spelling_wins_and_an_empty_one_means_no_proxy(monkeypatch):
    """As in every other tool."""
    monkeypatch.setenv("HTTPS_PROXY", "http://large.example:1")
    monkeypatch.setenv("https_proxy", "http://small.example:2")
    assert proxy("wss://name.openai.azure.com")[0] == "small.example"
    monkeypatch.setenv("https_proxy", "")
    assert proxy("wss://name.openai.azure.com") is None


# -- through a proxy


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_chat_and_voice_go_through_the_proxy_to_the_real_host_names(office, monkeypatch, name):
    """The names are looked up by the proxy: here they lead nowhere."""
    monkeypatch.setenv(name, f"http://127.0.0.1:{office.port}")
    monkeypatch.setenv("SSL_CERT_FILE", office.certificate())
    assert chat(office.settings) == office.words
    assert say(office.settings)
    assert office.proxy.places == {f"{office.host}:443", f"{SPEECH_HOST}:443"}
    assert all(login in ("", ":") for _, login in office.proxy.asked)  # the SDK always sends one


@pytest.mark.parametrize("encode", [partial(quote, safe=""), str])
def test_the_proxy_s_name_and_password_are_sent_by_chat_and_voice(tmp_path, monkeypatch, encode):
    """A password with "@", ":" and "/" in it, percent-encoded or not."""
    name, password = made_up(), f"{made_up_key(12)}@:/{made_up_key(12)}"
    with Office(tmp_path, login=f"{name}:{password}") as office:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{name}:{encode(password)}@localhost:{office.port}")
        monkeypatch.setenv("SSL_CERT_FILE", office.certificate())
        assert chat(office.settings) == office.words
        assert say(office.settings)
        assert {login for _, login in office.proxy.asked} == {f"{name}:{password}"}


def test_what_no_proxy_names_is_reached_without_the_proxy(office, monkeypatch):
    """Which fails here: outside of the proxy the names lead nowhere. The proxy is not asked, and not named."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{office.port}")
    monkeypatch.setenv("SSL_CERT_FILE", office.certificate())
    monkeypatch.setenv("NO_PROXY", "localhost,*.azure.com,*.speech.microsoft.com")
    error = refusal(office.settings)
    assert isinstance(error, ConnectionFailed) and f"no host named {office.host} was found" in str(error)
    with pytest.raises(SpeechFailed, match="ConnectionFailure") as caught:
        say(office.settings)
    assert "AZURE_SPEECH_REGION" in caught.value.hint
    assert office.proxy.asked == []


def test_servers_on_this_machine_never_go_through_a_proxy(office, practice, monkeypatch):
    """Neither the practice server nor TLS servers, whatever the environment says."""
    for name in PROXIES[:-1]:
        monkeypatch.setenv(name, f"http://127.0.0.1:{office.port}")
        monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{office.port}")
    monkeypatch.setenv("SSL_CERT_FILE", office.certificate())
    for settings in (practice, office.here):
        assert chat(settings)
        assert say(settings)
    assert office.proxy.asked == []


@pytest.mark.parametrize("address", ["http://{name}:{password}@localhost:{port}", "http://{name}:{password}/{password}@localhost:{port}"])
def test_a_refused_password_names_the_proxy_and_not_the_endpoint_and_is_not_shown(tmp_path, monkeypatch, address):
    """Also a password with a slash, which splits the address for many a parser. Tracebacks with local variables do not show it either."""
    name, password = made_up(), made_up_key()
    with Office(tmp_path, login="somebody:else") as office:
        monkeypatch.setenv("HTTPS_PROXY", address.format(name=name, password=password, port=office.port))
        error = refusal(office.settings)
        assert f"localhost:{office.port} (the proxy) wants a name and a password" in str(error) and "407" in str(error)
        assert office.host not in str(error) and "HTTPS_PROXY" in error.hint and not error.retryable
        with pytest.raises(SpeechFailed) as caught:
            say(office.settings)
        assert "HTTPS_PROXY" in caught.value.hint
        assert len(office.proxy.asked) >= 2
    for shown in (everything(error), everything(caught.value)):
        assert shows(shown, password) == []


@pytest.mark.parametrize(("status", "words"), [(403, "does not connect to"), (502, "could not connect to"), (504, "could not connect to")])
def test_a_proxy_that_lets_nobody_through_is_named_with_its_status(tmp_path, monkeypatch, status, words):
    with Office(tmp_path, status=status) as office:
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{office.port}")
        error = refusal(office.settings)
    assert f"localhost:{office.port} (the proxy) {words} {office.host}" in str(error) and str(status) in str(error)
    assert error.retryable == (status != 403)


def test_a_proxy_that_is_not_there_is_named_instead_of_the_endpoint(office, monkeypatch):
    """One whose host does not exist, one whose port is closed, and an address with no host; chat and voice."""
    port, missing = closed_port(), f"{made_up().lower()}.invalid"
    for place, words in (
        (f"127.0.0.1:{port}", f"nothing answers on 127.0.0.1:{port} (the proxy)"),
        (f"{missing}:3128", f"no host named {missing}:3128 (the proxy) was found"),
        ("", "no host named ?:80 (the proxy) was found"),
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{place}")
        error = refusal(office.settings)
        assert isinstance(error, ConnectionFailed) and words in str(error) and "HTTPS_PROXY" in error.hint
        with pytest.raises(SpeechFailed, match="ConnectionFailure") as caught:
            say(office.settings)
        assert "HTTPS_PROXY" in caught.value.hint


def test_a_whole_answer_is_heard_through_the_proxy(office, monkeypatch):
    """Each thread of the voice goes through it."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{office.port}")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", office.certificate())
    with ConversationAgent.connect(office.settings, player=SilentPlayer()) as agent:
        turn = agent.ask(made_up())
        assert turn.wait(30) and (turn.text, turn.speech) == (office.words, "spoken")
    assert office.script.texts()[-1] == office.words


def test_a_voice_that_is_refused_by_the_proxy_leaves_the_text_complete(office, monkeypatch):
    """And the turn says that it was not spoken."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{office.port}")
    monkeypatch.setenv("SSL_CERT_FILE", office.certificate())
    del office.proxy.routes[f"{SPEECH_HOST}:443"]
    with ConversationAgent.connect(office.settings, player=SilentPlayer()) as agent:
        turn = agent.ask(made_up())
        assert turn.wait(30) and (turn.text, turn.status, turn.speech) == (office.words, "done", "failed")
        assert all("ConnectionFailure" in item.reason for item in turn.utterances)


def test_a_proxy_that_never_answers_is_given_up(office, monkeypatch):
    """It takes the connection and keeps it; the sentence names it."""
    monkeypatch.setitem(realtime.OPTIONS, "timeout", 0.2)

    async def keep(reader, writer):
        await reader.read()

    with listening(keep) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{port}")
        error = refusal(office.settings)
    assert isinstance(error, ConnectionFailed) and f"localhost:{port} (the proxy)" in str(error) and error.retryable


# -- certificates


def test_an_untrusted_certificate_is_refused_with_the_setting_that_helps(office):
    """By the chat and by the voice, and soon; nothing is sent to such a server."""
    error = refusal(office.here)
    assert isinstance(error, ConnectionFailed) and f"the certificate of 127.0.0.1:{office.chat_port} is not trusted here" in str(error)
    assert "SSL_CERT_FILE" in error.hint and not error.retryable
    with pytest.raises(SpeechFailed, match="ConnectionFailure") as caught:
        say(office.here)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert office.script.upgrades == []


@pytest.mark.parametrize("name", BUNDLES)
def test_each_variable_that_names_certificates_works_for_chat_and_voice(office, monkeypatch, name):
    """The authority is the last of three in the file, with a remark in another alphabet before them."""
    path = office.certificate(trustme.CA(), trustme.CA(), office.ca)
    Path(path).write_text(f"# Főtanúsítvány\n{Path(path).read_text()}", "utf-8")
    monkeypatch.setenv(name, path)
    assert chat(office.here) == office.words
    assert say(office.here)


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("other", BUNDLES)
def test_one_variable_does_not_take_away_what_another_one_names(office, monkeypatch, name, other):
    """Containers and environments set some of them by themselves; a file that is not there is passed over."""
    for path in (office.certificate(trustme.CA()), "/nowhere/at/all.pem"):
        monkeypatch.setenv(other, path)
        monkeypatch.setenv(name, office.certificate())
        assert chat(office.here) == office.words
        assert say(office.here)


@pytest.mark.parametrize("name", BUNDLES)
def test_the_wrong_authority_is_as_good_as_none(office, monkeypatch, name):
    monkeypatch.setenv(name, office.certificate(trustme.CA()))
    assert "SSL_CERT_FILE" in refusal(office.here).hint
    with pytest.raises(SpeechFailed, match="ConnectionFailure") as caught:
        say(office.here)
    assert "SSL_CERT_FILE" in caught.value.hint


def test_a_trusted_certificate_for_another_host_is_refused(office, monkeypatch):
    """By the chat, which says so, and by the voice, whichever variable names the authority."""
    with behind_tls(closed_port(), office.ca.issue_cert("elsewhere.example")) as port:
        place = f"wss://127.0.0.1:{port}"
        elsewhere = Settings("azure", place, Secret(made_up_key()), "d", Secret(made_up_key()), speech_host=place)
        for name in BUNDLES[:2]:
            monkeypatch.setenv(name, office.certificate())
            assert "has the certificate of another host" in str(refusal(elsewhere))
            with pytest.raises(SpeechFailed, match="ConnectionFailure"):
                say(elsewhere)


def test_a_file_without_a_certificate_is_said(office, monkeypatch):
    """With the settings to look at."""
    path = office.folder / "empty.pem"
    path.write_text(made_up())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    error = refusal(office.here)
    assert "can't be read" in str(error) and "REQUESTS_CA_BUNDLE" in error.hint
    with pytest.raises(SpeechFailed, match="ConnectionFailure"):
        say(office.here)


def test_a_service_behind_the_proxy_still_speaks_for_itself(office, monkeypatch):
    """A refused key is the endpoint's word, not the proxy's."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{office.port}")
    monkeypatch.setenv("SSL_CERT_FILE", office.certificate())
    with (
        serving(Answer, status=401, body='{"error": {"message": "Access denied"}}') as plain,
        behind_tls(plain, office.ca.issue_cert(office.host)) as port,
    ):
        office.proxy.routes[f"{office.host}:443"] = port
        error = refusal(office.settings)
    assert f"{office.host} refused the key (401: Access denied)" in str(error) and "proxy" not in str(error)


def test_no_line_of_ours_turns_verification_off():
    """Neither of the words that Python, websocket-client, OpenSSL or the Speech SDK have for it."""
    words = re.compile(r"CERT_NONE|check_hostname|_create_unverified|verify\s*=\s*False|DISABLE_CRL|DisableDefaultVerify|cert_reqs")
    files = list(Path(__file__).parents[1].joinpath("voicehelper").rglob("*.py"))
    assert files and [path.name for path in files if words.search(path.read_text("utf-8"))] == []
