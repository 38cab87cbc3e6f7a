"""Fetching with caps, against a server that would take its time."""

import time
from collections.abc import Iterator

import pytest

from shared.clock import SystemClock
from shared.feeds.fetch import Caps, FeedFailed, download
from tests.feeds.servers import Page, Publisher, publisher


@pytest.fixture
def web() -> Iterator[Publisher]:
    with publisher() as server:
        yield server


def test_a_server_that_drips_is_given_up_after_the_whole_time_and_not_after_each_bytes(web: Publisher) -> None:
    web.pages["/slow"] = Page(b"x" * 1000, drip_s=0.05)
    began = time.monotonic()
    with (
        pytest.raises(FeedFailed, match="took longer than 1 s"),
        download(f"{web.url}/slow", clock=SystemClock(), caps=Caps(1, 1, 5)),
    ):
        pass
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (Page(b"abc" * 100, cut=7), "broke"),
        (Page(b"not gzip", headers={"Content-Encoding": "gzip"}), "broke"),
        (Page(b"x" * 3_000_000, zipped=True), "larger than 1 MB"),
        (Page(status=429, headers={"Retry-After": "7"}), "answered 429"),
    ],
)
def test_what_does_not_come_whole_is_no_copy(web: Publisher, page: Page, said: str) -> None:
    web.pages["/feed"] = page
    with (
        pytest.raises(FeedFailed, match=said),
        download(f"{web.url}/feed", clock=SystemClock(), caps=Caps(1, 5, 5)),
    ):
        pass


def test_nobody_there_is_said_in_words() -> None:
    with (
        pytest.raises(FeedFailed, match="could not be made"),
        download("http://127.0.0.1:1/feed", clock=SystemClock(), caps=Caps(1, 5, 5)),
    ):
        pass
