"""The chat client against a small server on this machine, with errors put in."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from graphflow.errors import MissingError, UsageError
from graphflow.models.refs import ModelRef, loaders
from graphflow.nodes.lib.openai_chat import OpenAIChat, ServiceError


def completion(text):
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}


class Service:
    """Answers with prepared (status, JSON or text, headers) and remembers what it was asked."""

    def __init__(self):
        self.answers, self.requests = [], []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.requests.append((self.path, dict(self.headers), body))
                status, content, *headers = service.answers.pop(0) if service.answers else completion("ok")
                if status is None:
                    self.connection.close()
                    return
                data = (content if isinstance(content, str) else json.dumps(content)).encode()
                self.send_response(status)
                for key, value in (headers[0] if headers else {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def service():
    service = Service()
    yield service
    service.server.shutdown()
    service.server.server_close()


def client(service, **how):
    waits = []
    chat = OpenAIChat(service.url, "tiny", sleep=waits.append, **how)
    return chat, waits


def test_a_completion_is_asked_for_in_the_protocols_form(service):
    service.answers = [completion("a dog")]
    chat, _ = client(service, api_key="secret")
    assert chat.complete("hello", seed=4, max_new_tokens=9, temperature=0.5, top_p=0.9, stop="###") == ["a dog"]
    path, headers, body = service.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["###"],
        "seed": 4,
    }


def test_several_completions_have_seeds_of_their_own(service):
    service.answers = [completion("a"), completion("b")]
    chat, _ = client(service)
    assert chat.complete("x", 2, seed=7) == ["a", "b"]
    assert [body["seed"] for _, _, body in service.requests] == [7, 8]
    assert all("Authorization" not in headers for _, headers, _ in service.requests)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_faults_are_retried_with_growing_pauses(service, status):
    service.answers = [(status, "busy"), (status, "busy"), completion("at last")]
    chat, waits = client(service)
    assert chat.complete("x") == ["at last"]
    assert waits == [1.0, 2.0]


def test_a_broken_connection_is_retried(service):
    service.answers = [(None, ""), completion("at last")]
    chat, waits = client(service)
    assert chat.complete("x") == ["at last"]
    assert waits == [1.0]


def test_the_service_says_how_long_to_wait(service):
    service.answers = [
        (429, "", {"Retry-After": "7"}),
        (429, "", {"Retry-After": "9999"}),
        (429, "", {"Retry-After": "soon"}),
    ]
    chat, waits = client(service)
    assert chat.complete("x") == ["ok"]
    assert waits == [7.0, 60.0, 4.0]


def test_attempts_end_with_the_last_fault(service):
    service.answers = [(503, "out of memory")] * 3
    chat, waits = client(service, attempts=3)
    with pytest.raises(ServiceError, match=r"chat/completions: status 503: out of memory \(after 3 attempts\)"):
        chat.complete("x")
    assert len(service.requests) == 3
    assert len(waits) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
def test_refusals_are_not_retried_and_do_not_show_the_key(service, status):
    service.answers = [(status, "no such model", {"Location": "http://127.0.0.1:1/elsewhere"})]
    chat, _ = client(service, api_key="secret")
    with pytest.raises(ServiceError, match=f"status {status}: no such model") as caught:
        chat.complete("x")
    assert len(service.requests) == 1
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("answer", ["<html>", "[]", '{"choices": []}', '{"choices": [{"message": {}}]}', "null"])
def test_answers_that_are_no_completion_are_shown(service, answer):
    service.answers = [(200, answer)]
    with pytest.raises(ServiceError, match="no chat completion"):
        client(service)[0].complete("x")


def test_a_completion_without_text_is_an_error(service):
    service.answers = [completion(None)]
    with pytest.raises(ServiceError, match="has no text"):
        client(service)[0].complete("x")


def test_silence_ends_after_the_timeout():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        chat = OpenAIChat(
            f"http://127.0.0.1:{silent.getsockname()[1]}", "m", timeout=0.1, attempts=2, sleep=lambda _: None
        )
        with pytest.raises(ServiceError, match=r"ReadTimeout.*after 2 attempts"):
            chat.complete("x")


@pytest.mark.parametrize("url", ["", "localhost:8000", "file:///etc/passwd", "ftp://host/v1"])
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError, match="no http"):
        OpenAIChat(url, "m")


def test_a_key_does_not_leave_the_machine_unencrypted():
    with pytest.raises(ValueError, match="use https"):
        OpenAIChat("http://example.org/v1", "m", "secret")
    assert OpenAIChat("https://example.org/v1", "m", "secret").url.scheme == "https"


def load(endpoint, **options):
    ref = ModelRef("llm", "openai", "none", endpoint=endpoint, options=options)
    return loaders()["openai"].load(ref, None, torch.device("cpu"), torch.float32)


def test_the_loader_reads_the_key_from_the_named_variable(service, monkeypatch):
    monkeypatch.setenv("TINY_API_KEY", "from the environment")
    load(service.url, model="tiny", api_key_env="TINY_API_KEY").complete("x")
    assert service.requests[0][1]["Authorization"] == "Bearer from the environment"


def test_the_loader_says_what_is_missing(monkeypatch):
    monkeypatch.delenv("TINY_API_KEY", raising=False)
    with pytest.raises(MissingError, match="set the environment variable TINY_API_KEY"):
        load("http://localhost:1", model="m", api_key_env="TINY_API_KEY")
    with pytest.raises(UsageError, match="the option 'model'"):
        load("http://localhost:1")
    with pytest.raises(UsageError, match="the option 'model'"):
        load(None, model="m")
    with pytest.raises(UsageError, match="ends in _API_KEY"):
        load("http://localhost:1", model="m", api_key_env="AWS_SECRET_ACCESS_KEY_ID")
    with pytest.raises(UsageError, match="no http"):
        load("nonsense", model="m")
