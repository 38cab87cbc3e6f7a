"""What a person sees of the Stripe double: the Checkout page, and every subscription with what may befall it."""

from html import escape

from werkzeug.wrappers import Request, Response

from shared.laptop import stripe_objects as make
from shared.laptop.stripe_store import NoSuch, NotPossible, Store

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Stripe double</title>
<meta name="viewport" content="width=device-width">
<body style="font: 16px/1.8 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem">
<main><h1>Stripe double</h1>{}</main></body></html>"""
_FATES = ("renew, paid", "renew, unpaid", "cancel")


def answer(store: Store, request: Request) -> Response:
    """The page at the request's path; a POST acts and leads back."""
    parts = request.path.strip("/").split("/")
    try:
        if parts[:2] == ["c", "pay"] and len(parts) == 3:
            return _pay(store, request, parts[2])
        if parts == ["subscribe"] and request.method == "POST":
            return _begin(store, request)
        if parts[0] == "subscriptions" and len(parts) == 2 and request.method == "POST":
            _befall(store, parts[1], request.form.get("fate", ""))
            return _to("/")
    except (NoSuch, NotPossible) as error:
        return _page(f"<p>{escape(str(error))}</p>", 404)
    return _page(_all(store)) if parts == [""] else _page("<p>There is nothing here.</p>", 404)


def _pay(store: Store, request: Request, session_id: str) -> Response:
    session = store.get("checkout.session", session_id)
    back = str(session["success_url"] or "/").replace("{CHECKOUT_SESSION_ID}", session_id)
    if request.method == "POST":
        store.complete(session_id)
        return _to(back)
    if session["status"] != "open":
        return _to(back)
    away = escape(str(session["cancel_url"] or "/"), quote=True)
    return _page(
        "<p>No card is asked for: nobody pays here.</p>"
        f'<form method="post"><button name="pay">Subscribe</button> <a href="{away}">Back</a></form>'
    )


def _begin(store: Store, request: Request) -> Response:
    """What a platform's own server does when somebody presses its button: begin a Checkout for the account."""
    lines = [{"price": request.form.get("price", ""), "quantity": "1"}]
    given = {"mode": "subscription", "client_reference_id": request.form.get("account", ""), "line_items": lines}
    return _to(
        str(store.session({**given, "success_url": "/", "cancel_url": "/"}, request.host_url.rstrip("/"))["url"])
    )


def _befall(store: Store, subscription_id: str, fate: str) -> None:
    if fate == "cancel":
        store.cancel(subscription_id)
    elif fate in _FATES:
        store.renew(subscription_id, paid=fate == "renew, paid")


def _all(store: Store) -> str:
    rows = []
    for one in store.newest("subscription"):
        buttons = "".join(f'<button name="fate" value="{fate}">{fate}</button> ' for fate in _FATES)
        form = f'<form method="post" action="/subscriptions/{escape(one["id"], quote=True)}">{buttons}</form>'
        what = "" if one["status"] in make.ENDED else form
        cells = (one["id"], one["customer"], one["status"])
        rows.append(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}<td>{what}</td></tr>")
    prices = "".join(f"<option>{escape(one['id'])}</option>" for one in store.newest("price"))
    begin = (
        '<form method="post" action="/subscribe"><label>Account <input name="account" required></label> '
        f'<select name="price" aria-label="Price">{prices}</select> <button>Begin Checkout</button></form>'
    )
    return f"{begin}<table><tr><th>subscription<th>customer<th>status<th>what may befall it</tr>{''.join(rows)}</table>"


def _page(body: str, status: int = 200) -> Response:
    return Response(_PAGE.format(body), status, content_type="text/html; charset=utf-8")


def _to(where: str) -> Response:
    return Response("", 303, {"Location": where})
