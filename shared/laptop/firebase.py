"""Firebase Auth on a laptop: what firebase-admin and the Web SDK call when FIREBASE_AUTH_EMULATOR_HOST leads here.

Its tokens are unsigned, so whoever reaches it is whoever they say: it listens on 127.0.0.1 only, and the product
refuses that variable in the cloud. Requests and answers are checked against what Google publishes.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from shared.clock import Clock
from shared.laptop.firebase_schema import Unpublished, check_answer, check_request, methods
from shared.laptop.firebase_users import Answer, Refusal, Users
from shared.laptop.ports import free_ports
from shared.laptop.processes import Part

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

VARIABLE = "FIREBASE_AUTH_EMULATOR_HOST"

# For the demo only; the address of the operator is on the plane's operator list.
DEMO_PASSWORD = "only-for-the-demo"  # noqa: S105 - nobody's: printed by `keeper up`
DEMO_OPERATOR = "operator@example.com"
DEMO_CUSTOMER = "customer@example.com"

# firebase-admin's and the emulator's own way to say: as an administrator.
_OWNER = "Bearer owner"
_BROWSERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
}


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...


class FirebaseAuth:
    """The double's server on 127.0.0.1:`port`, in a thread of this process."""

    def __init__(self, project: str, clock: Clock, *, port: int | None = None) -> None:
        self.users = Users(project, clock)
        administrator: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "projects.accounts": self.users.create,
            "projects.accounts.batchDelete": self.users.batch_delete,
            "projects.accounts.delete": self.users.delete,
            "projects.accounts.lookup": self.users.lookup,
            "projects.accounts.update": self.users.update,
            "projects.createSessionCookie": self.users.session_cookie,
        }
        anybody: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "accounts.delete": self.users.delete,
            "accounts.lookup": self.users.lookup,
            "accounts.signInWithPassword": self.users.sign_in_with_password,
            "accounts.signUp": self.users.sign_up,
            "accounts.update": self.users.update,
            "v1.getProjects": self._project,
        }
        self._methods = {**administrator, **anybody}
        self._administrators = set(administrator)
        self._paths = [
            (_pattern(published["path"], project), published["httpMethod"], name)
            for name, published in methods().items()
        ]
        self._server = _bind(self._answer, port)
        self.port = int(self._server.server_port)
        self.host = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="firebase", daemon=True)
        self._thread.start()

    @property
    def part(self) -> Part:
        people = f"{DEMO_OPERATOR} and {DEMO_CUSTOMER}, password {DEMO_PASSWORD}"
        return Part("firebase", f"Firebase Auth of our own, unsigned tokens; {people}", self.host)

    def add_demo_users(self, customer_uid: str | None) -> None:
        """An operator, and the owner of one of the demo's accounts if there is one."""
        self.users.add(DEMO_OPERATOR, DEMO_PASSWORD, uid="demo-operator", operator=True)
        if customer_uid is not None:
            self.users.add(DEMO_CUSTOMER, DEMO_PASSWORD, uid=customer_uid)

    def stop(self) -> None:
        """End it; its users are gone."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _project(self, _body: Mapping[str, Any]) -> Answer:
        return {"projectId": self.users.project, "authorizedDomains": ["localhost", "127.0.0.1"]}

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        if request.method == "OPTIONS":
            answer = Response(status=204)
        else:
            status, body = self._found(request)
            answer = Response(json.dumps(body), status, content_type="application/json")
        answer.headers.update(_BROWSERS)
        return answer(environ, start_response)

    def _found(self, request: Request) -> tuple[int, Answer]:
        if request.path == "/securetoken.googleapis.com/v1/token":
            return self._refreshed(request)
        path = request.path.removeprefix("/identitytoolkit.googleapis.com/")
        name = next((n for p, verb, n in self._paths if verb == request.method and p.fullmatch(path)), None)
        if name is None or name not in self._methods:
            return _error(404, "NOT_FOUND")
        if name in self._administrators and request.headers.get("Authorization") != _OWNER:
            return _error(401, "Request is missing required authentication credential.")
        body = request.get_json(silent=True) if request.method == "POST" else {}
        if not isinstance(body, dict):
            return _error(400, "Invalid JSON payload received.")
        try:
            if request.method == "POST":
                check_request(name, body)
        except Unpublished as unknown:
            return _error(400, f"Invalid JSON payload received. {unknown}")
        try:
            answer = self._methods[name](body)
        except Refusal as refusal:
            return _error(400, str(refusal))
        kind = {"kind": f"identitytoolkit#{_KINDS[name]}"} if name in _KINDS else {}
        check_answer(name, {**kind, **answer})
        return 200, {**kind, **answer}

    def _refreshed(self, request: Request) -> tuple[int, Answer]:
        # https://firebase.google.com/docs/reference/rest/auth#section-refresh-token: a form, and JSON in answer
        given = request.form if request.form else (request.get_json(silent=True) or {})
        if given.get("grant_type") != "refresh_token":
            return _error(400, "INVALID_GRANT_TYPE")
        try:
            return 200, self.users.refreshed(str(given.get("refresh_token") or given.get("refreshToken")))
        except Refusal as refusal:
            return _error(400, str(refusal))


_KINDS = {
    "accounts.delete": "DeleteAccountResponse",
    "accounts.lookup": "GetAccountInfoResponse",
    "accounts.signInWithPassword": "VerifyPasswordResponse",
    "accounts.signUp": "SignupNewUserResponse",
    "accounts.update": "SetAccountInfoResponse",
    "projects.accounts": "SignupNewUserResponse",
    "projects.accounts.delete": "DeleteAccountResponse",
    "projects.accounts.lookup": "GetAccountInfoResponse",
    "projects.accounts.update": "SetAccountInfoResponse",
}


def _pattern(path: str, project: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(re.escape("{+targetProjectId}"), re.escape(project)))


def _error(status: int, message: str) -> tuple[int, Answer]:
    """As Google's APIs say it."""
    reason = "NOT_FOUND" if status == 404 else "UNAUTHENTICATED" if status == 401 else "INVALID_ARGUMENT"
    return status, {
        "error": {
            "code": status,
            "message": message,
            "status": reason,
            "errors": [{"message": message, "domain": "global", "reason": "invalid"}],
        }
    }


def _bind(app: Callable[..., Iterable[bytes]], wish: int | None) -> Any:
    for port in free_ports(wish):
        try:
            return make_server("127.0.0.1", port, app, threaded=True, request_handler=_Quiet)
        except SystemExit:  # werkzeug's word for a port taken since
            continue
    raise OSError("no free port on 127.0.0.1 for Firebase Auth: end some of the programs that listen there")
