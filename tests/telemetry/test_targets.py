"""What a service's URL may say."""

import pytest

from shared.telemetry.targets import BadTarget, parse, redirected


@pytest.mark.parametrize(
    ("kind", "url", "canonical", "host", "port", "literal"),
    [
        ("http", "https://Example.COM", "https://example.com:443/", "example.com", 443, False),
        ("http", "http://example.com/a?b=c#d", "http://example.com:80/a?b=c", "example.com", 80, False),
        ("http", "http://bücher.example/", "http://xn--bcher-kva.example:80/", "xn--bcher-kva.example", 80, False),
        ("http", "http://[2606:4700::1]:8080/x", "http://[2606:4700::1]:8080/x", "2606:4700::1", 8080, True),
        ("http", "http://8.8.8.8", "http://8.8.8.8:80/", "8.8.8.8", 80, True),
        ("http", "http://example.com./", "http://example.com:80/", "example.com", 80, False),
        ("tls", "tls://example.com:443", "https://example.com:443/", "example.com", 443, False),
        ("tcp", "tcp://example.com:5432", "http://example.com:5432/", "example.com", 5432, False),
    ],
)
def test_a_url_becomes_canonical(kind: str, url: str, canonical: str, host: str, port: int, literal: bool) -> None:
    target = parse(kind, url)
    assert (target.url, target.host, target.port, target.literal) == (canonical, host, port, literal)


@pytest.mark.parametrize(
    ("kind", "url", "reason"),
    [
        ("http", "ftp://example.com/", "scheme"),
        ("http", "file:///etc/passwd", "scheme"),
        ("http", "gopher://example.com/", "scheme"),
        ("http", "tcp://example.com:1", "scheme"),
        ("tcp", "http://example.com", "scheme"),
        ("tcp", "tcp://example.com", "port"),
        ("http", "http://example.com:0/", "port"),
        ("http", "http://example.com:99999/", "port"),
        ("http", "http://u:p@example.com/", "user"),
        ("http", "http://@example.com/", "user"),
        ("http", "http://exa mple.com/", "space"),
        ("http", "http://example.com/\r\nX: y", "control"),
        ("http", "http://example.com\\@127.0.0.1/", "backslash"),
        ("http", "http://2130706433/", "number"),
        ("http", "http://0x7f000001/", "number"),
        ("http", "http://0x7f.1/", "number"),
        ("http", "http://127.1/", "number"),
        ("http", "http://0177.0.0.1/", "number"),
        ("http", "http://example.0x7f/", "number"),
        ("http", "http://127.0.0.1%2f/", "percent"),
        ("http", "http://[fe80::1%25eth0]/", "percent"),
        ("http", "http:///x", "name"),
        ("http", "http://-x.example/", "name"),
        ("http", "http://a..example/", "name"),
        ("http", "http://[::1/", "readable"),
        ("http", "http://example.com/é", "ASCII"),
        ("http", "http://example.com/" + "x" * 2100, "longer"),
    ],
)
def test_a_url_that_could_mean_something_else_is_refused(kind: str, url: str, reason: str) -> None:
    with pytest.raises(BadTarget, match=reason) as refused:
        parse(kind, url)
    assert "example" not in str(refused.value)


@pytest.mark.parametrize("url", ["ftp://example.com/", "file:///etc/passwd", "tls://example.com:443", "javascript:x"])
def test_a_redirect_leads_to_http_or_nowhere(url: str) -> None:
    with pytest.raises(BadTarget):
        redirected(url)
