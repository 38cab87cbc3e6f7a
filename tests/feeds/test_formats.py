"""Every documented format, record by record; what cannot be read is counted with its reason."""

import io
import json

import pytest

from shared.feeds.formats import FORMATS, Bad, Malformed, Record
from shared.feeds.samples import SAMPLES

URLHAUS = {"text": "url", "first_seen": "dateadded", "description": "threat", "reference": "urlhaus_link"}


def read(form: str, text: str, columns: dict[str, str] | None = None) -> list[Record | Bad]:
    return list(FORMATS[form](io.BytesIO(text.encode()), columns or {}))


def good(entries: list[Record | Bad]) -> list[Record]:
    return [e for e in entries if isinstance(e, Record)]


def test_columns_are_found_by_name_wherever_they_stand() -> None:
    one = read("csv", SAMPLES["urlhaus"], URLHAUS)
    shuffled = "# urlhaus_link,threat,url,dateadded\nlink,malware_download,http://198.51.100.7:8080/bin.sh,2026-06-15\n"
    other = read("csv", shuffled, URLHAUS)
    assert len(one) == 4
    assert good(one)[0].text == good(other)[0].text == "http://198.51.100.7:8080/bin.sh"
    assert good(one)[1].text == "hxxps://Files.Malware.example/x,y.exe"
    assert good(other)[0].reference == "link"


def test_a_missing_column_refuses_the_copy_and_names_the_column() -> None:
    with pytest.raises(Malformed, match="dateadded"):
        read("csv", "id,url,threat,urlhaus_link\n1,http://x.example/,t,l\n", URLHAUS)


def test_rows_of_another_width_are_bad_and_the_others_stay() -> None:
    entries = read("csv", "a,text\n1,one.example\n1,2,3\n\n4,four.example\n", {"text": "text"})
    assert [e.text for e in good(entries)] == ["one.example", "four.example"]
    assert [e.reason for e in entries if isinstance(e, Bad)] == ["3 columns instead of 2"]


def test_a_list_has_comments_byte_order_marks_and_any_line_ending() -> None:
    text = "\ufeff# comment\r\n1.2.3.4 # why\r\n\r\n; more\n5.6.7.8;SBL1\nevil.example\tx"
    assert [e.text for e in good(read("list", text))] == ["1.2.3.4", "5.6.7.8;SBL1", "evil.example"]


def test_threatfox_feodo_kev_otx_and_abuseipdb_as_documented() -> None:
    fox = good(read("threatfox", SAMPLES["threatfox"]))
    assert (fox[0].text, fox[0].kind, fox[0].confidence) == ("192.0.2.10:443", "ip_port", 100)
    assert fox[0].reference == "https://threatfox.abuse.ch/ioc/1000000/"
    assert good(read("feodo", SAMPLES["feodo"]))[0][:2] == (1, "203.0.113.5:443")
    vulnerability = good(read("kev", SAMPLES["kev"]))[0]
    assert (vulnerability.text, vulnerability.severity, vulnerability.first_seen) == (
        "CVE-2021-44228",
        "critical",
        "2021-12-10",
    )
    pulses = read("otx", SAMPLES["otx"])
    assert [e.kind for e in good(pulses)] == ["ip", "domain", "cidr", "cve"]
    assert [e.content for e in pulses if isinstance(e, Bad)] == ["Mutex"]
    assert [e.confidence for e in good(read("abuseipdb", SAMPLES["abuseipdb"]))] == [100, 92, 95]


def test_a_catalogue_that_lost_entries_on_the_way_is_refused() -> None:
    document = json.loads(SAMPLES["kev"])
    document["vulnerabilities"].pop()
    with pytest.raises(Malformed, match="says 3 vulnerabilities and has 2"):
        read("kev", json.dumps(document))


@pytest.mark.parametrize("form", sorted(set(FORMATS) - {"list", "csv"}))
@pytest.mark.parametrize("text", ["", "<html>", "[1, 2", "null", "3", '"x"', "[[[[" * 500])
def test_what_is_not_the_format_is_malformed_and_no_defect(form: str, text: str) -> None:
    with pytest.raises(Malformed):
        read(form, text)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("threatfox", '{"1": [3, {"ioc_value": 5}, {"ioc_value": "x", "ioc_type": "sonnet"}], "2": null}'),
        ("feodo", '[3, null, {"ip_address": 5}]'),
        ("kev", '{"vulnerabilities": [3, {"cveID": []}]}'),
        ("otx", '{"results": [3]}'),
        ("abuseipdb", '{"data": [{"ipAddress": null}, 3]}'),
    ],
)
def test_entries_of_another_shape_are_bad_or_the_copy_malformed(form: str, text: str) -> None:
    try:
        assert all(isinstance(e, Bad) for e in read(form, text))
    except Malformed:
        assert form == "otx"
