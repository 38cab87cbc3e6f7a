"""Canonical indicators: one thing, one key; and what nobody should block is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.feeds.allowed import Allowed
from shared.feeds.indicators import Indicator, Reader, Unfit

READER = Reader()


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("45.61.49.78", "ipv4:45.61.49.78"),
        (" 45[.]61[.]49(.)78 ", "ipv4:45.61.49.78"),
        ("2A00:1450:4001:0:0:0:0:1", "ipv6:2a00:1450:4001::1"),
        ("::ffff:45.61.49.78", "ipv4:45.61.49.78"),
        ("45.61.49.78:0443", "ip_port:45.61.49.78:443"),
        ("[2a00:1450::1]:8443", "ip_port:[2a00:1450::1]:8443"),
        ("45.61.49.78/24", "cidr:45.61.49.0/24"),
        ("45.61.49.78/32", "ipv4:45.61.49.78"),
        ("Evil.Example[.]COM.", "domain:evil.example.com"),
        ("evil dot example".replace(" dot ", "[dot]"), "domain:evil.example"),
        ("bücher.example", "domain:xn--bcher-kva.example"),
        ("BÜCHER.example", "domain:xn--bcher-kva.example"),
        ("hxxps://Evil[.]example:443/A/b?C=d#part", "url:https://evil.example/A/b?C=d"),
        ("HTTP://evil.example", "url:http://evil.example/"),
        ("http[:]//evil.example/", "url:http://evil.example/"),
        ("http://evil.example/x?", "url:http://evil.example/x"),
        ("http://evil.example/x?y?", "url:http://evil.example/x?y?"),
        ("http://someone:secret@evil.example:8080/x", "url:http://evil.example:8080/x"),
        ("http://evil.example/ü b", "url:http://evil.example/%C3%BC%20b"),
        ("http://[2a00:1450::1]/x", "url:http://[2a00:1450::1]/x"),
        ("ftp://45.61.49.78:21/x", "url:ftp://45.61.49.78/x"),
        ("D41D8CD98F00B204E9800998ECF8427E", "md5:d41d8cd98f00b204e9800998ecf8427e"),
        ("cve-2021-44228", "cve:CVE-2021-44228"),
        ("_dmarc.evil.example", "domain:_dmarc.evil.example"),
    ],
)
def test_however_it_is_written_it_has_one_key(written: str, key: str) -> None:
    found = READER.read(written)
    assert found.key == key
    assert READER.read(found.value) == found


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "empty"),
        ("10.1.2.3", "public"),
        ("127.0.0.1:80", "public"),
        ("169.254.169.254", "public"),
        ("192.0.2.1", "public"),
        ("224.0.0.1", "public"),
        ("fe80::1", "public"),
        ("::ffff:10.0.0.1", "public"),
        ("0.0.0.0/0", "too wide"),
        ("8.0.0.0/8", "too wide"),
        ("2000::/3", "too wide"),
        ("192.168.0.0/24", "public"),
        ("1.2.3.4.5", "domain"),
        ("999.1.1.1", "domain"),
        ("010.0.0.1", "domain"),
        ("localhost", "domain"),
        ("-evil.example", "domain"),
        ("ev il.example", "domain"),
        ("45.61.49.78:99999", "port"),
        ("http:///x", "URL"),
        ("http://10.0.0.1/x", "public"),
        ("http://evil.example:port/x", "URL"),
        ("javascript://evil.example/", "URL"),
        ("http://evil.example/" + "x" * 3000, "longer"),
        ("http://evil.example/" + "ü" * 900, "longer"),
        ("cve-21-1", "CVE"),
        ("\ud800.example", "domain"),
    ],
)
def test_what_is_no_indicator_or_blocks_everybody_is_refused_with_the_reason(written: str, reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        READER.read(written)


def test_what_is_read_at_once_is_read_as_by_the_long_way() -> None:
    urls = ["http://evil.example/" + "x" * length for length in (1600, 1700, 1701, 1980)]
    for text in (*(f"{octet}.88.99.1" for octet in range(256)), "evil.example", "a" * 64, *urls):
        try:
            found = READER.read(f" {text}")
        except Unfit:
            with pytest.raises(Unfit):
                READER.read(text)
        else:
            assert READER.read(text) == found


def test_documentation_addresses_pass_only_where_samples_are_read() -> None:
    assert Reader(documentation=True).read("192.0.2.0/24").key == "cidr:192.0.2.0/24"
    with pytest.raises(Unfit):
        Reader(documentation=True).read("10.0.0.1")


@given(st.text(max_size=60))
def test_any_text_is_an_indicator_or_unfit_and_what_is_canonical_stays(text: str) -> None:
    try:
        found = READER.read(text)
    except Unfit:
        return
    assert READER.read(found.value) == found
    assert found.value.isascii()


@pytest.mark.full
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_thousand_texts_of_the_signs_indicators_have(seed: int) -> None:
    import random

    rng = random.Random(seed)
    for _ in range(25_000):
        text = "".join(rng.choices("htps:/.[]()@%?#-_ 0123456789abcxüX", k=rng.randint(1, 40)))
        try:
            found = READER.read(text)
        except Unfit:
            continue
        assert READER.read(found.value) == found, text


ALLOWED = Allowed(
    own=("ours.example,mine.example", ""), domains=("github.com",), networks=("8.8.8.0/24", "2620:fe::/48")
)


@pytest.mark.parametrize(
    ("written", "covered"),
    [
        ("github.com", True),
        ("api.github.com", True),
        ("notgithub.com", False),
        ("https://github.com/", True),
        ("https://github.com/someone/malware.exe", False),
        ("https://shop.ours.example/login", True),
        ("https://ours.example.evil.test/login", False),
        ("mine.example", True),
        ("very.deep.below.mine.example", True),
        ("e.example", False),
        ("xmine.example", False),
        ("8.8.8.8", True),
        ("8.8.8.8:53", True),
        ("8.8.9.8", False),
        ("8.8.0.0/16", True),
        ("http://8.8.8.8/x", True),
        ("2620:fe::9", True),
        ("[2620:fe::9]:53", True),
        ("d41d8cd98f00b204e9800998ecf8427e", False),
    ],
)
def test_ones_own_and_major_infrastructure_are_never_listed(written: str, covered: bool) -> None:
    assert ALLOWED.covers(READER.read(written)) is covered


def test_a_key_names_kind_and_value() -> None:
    assert Indicator("domain", "x.example").key == "domain:x.example"
