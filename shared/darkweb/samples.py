"""Made-up answers in each service's documented shape, for a laptop without keys or network."""

import json

DOMAINS = ("ours.example",)
TERMS = ("Groundskeeper Demo",)
KEY = "of no use outside this laptop"

_ONION = "a" * 56 + ".onion"

ANSWERS: dict[str, bytes] = {
    "/breaches": json.dumps(
        [
            {
                "Name": "SampleBreach",
                "Title": "Sample Breach",
                "Domain": "ours.example",
                "BreachDate": "2025-11-01",
                "AddedDate": "2026-01-02T03:04:05Z",
                "ModifiedDate": "2026-01-02T03:04:05Z",
                "PwnCount": 12,
                "Description": "A sample.",
                "DataClasses": ["Email addresses", "Passwords"],
                "IsVerified": True,
                "IsFabricated": False,
                "IsSensitive": False,
                "IsRetired": False,
                "IsSpamList": False,
                "IsMalware": False,
            },
            {"Name": "Elsewhere", "Domain": "elsewhere.example", "DataClasses": [], "IsVerified": True},
        ]
    ).encode(),
    "/breacheddomain/ours.example": json.dumps({"info": ["SampleBreach"]}).encode(),
    "/search/": (
        '<ol class="searchResults"><li class="result"><h4><a href="/search/redirect?search_term=x&amp;redirect_url='
        f'http://{_ONION}/list">Accounts of Groundskeeper Demo</a></h4><p>cheap</p><cite>{_ONION}</cite></li></ol>'
    ).encode(),
}
