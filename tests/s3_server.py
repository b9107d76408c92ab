"""A real S3 server on this machine, moto's, that counts what is asked of it and can fail."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from urllib.request import Request, urlopen

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "pictures"

Environ = dict[str, Any]


def environment(endpoint: str) -> dict[str, str]:
    """What a program needs to reach a server, and nothing that could lead elsewhere."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "NO_PROXY": "127.0.0.1",
    }


class _Silent(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


class S3Server:
    """`asked` counts (method, key); `fault(method, key)` may say how to fail: a code of S3's."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.fault: Callable[[str, str], str | None] = lambda method, key: None
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, True, request_handler=_Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def stored(self, prefix: str = "") -> list[str]:
        """The keys of the bucket."""
        found = self.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for entry in found.get("Contents", ())]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> S3Server:
        self._thread.start()
        # moto keeps what is stored for the whole process, whichever server it came through.
        with urlopen(Request(f"{self.endpoint}/moto-api/reset", method="POST")):
            pass
        self.client().create_bucket(Bucket=BUCKET)
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.stop()

    def _answer(self, environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        method, key = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(f"/{BUCKET}/")
        self.asked[method, key] += 1
        code = self.fault(method, key)
        if code is None:
            return self._app(environ, start)
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        start("403 Forbidden", [("Content-Type", "application/xml")])
        return [body]
